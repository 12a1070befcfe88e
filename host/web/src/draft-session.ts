// A shared draft: the Yjs document, its connection by the stock y-websocket provider, and who else is there. Owns when to connect and with
// which token; how documents merge is Yjs's. Needs no page.

import { readAuthMessage } from 'y-protocols/auth';
import { WebsocketProvider } from 'y-websocket';
import * as Y from 'yjs';

import { backoff_ms, verdict } from './closing.js';
import type { TokenSource } from './token.js';

const RECONNECT_MS = { first: 300, most: 10_000 };
/** The type of y-websocket's frames by which a server refuses. */
const AUTH_FRAME = 2;
/** Cursor colours, for other clients as well. Index: `hue`. */
export const COLOURS = ['#2f8b83', '#d65a3c', '#b57a10', '#8a5a9e', '#3f78b5', '#6a8f2f', '#c2477f', '#7a6a55'] as const;

export type Role = 'editor' | 'viewer';
export type DraftState = 'connecting' | 'connected' | 'reconnecting' | 'offline' | 'stopped';

export interface Person {
  clientId: number;
  name: string;
  hue: number;
  viewer: boolean;
  self: boolean;
}

export interface DraftOptions {
  /** Where the provider appends the draft's name. */
  serverUrl: string;
  draft: string;
  user: string;
  hue: number;
  role: Role;
  token: TokenSource;
  onChange: () => void;
  /** The server refused a change, and says why. */
  onRefused: (reason: string) => void;
}

export class DraftSession {
  readonly doc = new Y.Doc();
  readonly text = this.doc.getText('content');
  readonly provider: WebsocketProvider;
  state: DraftState = 'offline';
  error: string | null = null;
  /** The stored document was read: what is shown is the draft, not just what is known of it. */
  loaded = false;
  /** Changes made here since the connection was lost. */
  unsent = 0;

  private online = false;
  private attempts = 0;
  private timer: ReturnType<typeof setTimeout> | null = null;

  constructor(private readonly options: DraftOptions) {
    // Tabs of one browser would otherwise talk to each other past the server.
    this.provider = new WebsocketProvider(options.serverUrl, options.draft, this.doc, { connect: false, disableBc: true });
    const { name, hue } = { name: options.user, hue: options.hue };
    this.provider.awareness.setLocalStateField('user', { name, color: COLOURS[hue], colorLight: `${COLOURS[hue]}33`, role: options.role });
    this.provider.messageHandlers[AUTH_FRAME] = (_encoder, decoder) => readAuthMessage(decoder, this.doc, (_doc, reason) => options.onRefused(reason));
    this.provider.on('status', ({ status }) => {
      if (status === 'connected') this.become('connected');
    });
    this.provider.on('sync', (synced) => {
      if (!synced) return;
      this.loaded = true;
      this.attempts = this.unsent = 0;
      this.error = null;
      options.onChange();
    });
    this.provider.on('connection-close', (event) => this.closed(event));
    this.provider.awareness.on('change', options.onChange);
    this.doc.on('update', (_update, origin) => {
      if (origin !== this.provider && this.state !== 'connected') this.unsent++;
      options.onChange();
    });
  }

  /** Everyone who is here, oneself first. */
  get people(): Person[] {
    const { awareness } = this.provider;
    const people = [...awareness.getStates()].flatMap(([clientId, { user }]): Person[] => {
      if (typeof user?.name !== 'string') return [];
      const hue = COLOURS.findIndex((colour) => colour === user.color);
      return [{ clientId, name: user.name.slice(0, 64), hue: Math.max(0, hue), viewer: user.role === 'viewer', self: clientId === this.doc.clientID }];
    });
    return people.sort((a, b) => Number(b.self) - Number(a.self) || a.name.localeCompare(b.name) || a.clientId - b.clientId);
  }

  /** Goes online or offline. */
  setOnline(online: boolean): void {
    this.online = online;
    this.clear();
    if (online) {
      this.attempts = 0;
      void this.connect();
    } else {
      this.provider.disconnect();
      this.become('offline');
    }
  }

  /** Ends for good; changes that were not sent are lost. */
  destroy(): void {
    this.online = false;
    this.clear();
    this.provider.awareness.off('change', this.options.onChange);
    this.provider.destroy();
    this.provider.awareness.destroy();
    this.doc.destroy();
  }

  private async connect(): Promise<void> {
    this.become(this.attempts ? 'reconnecting' : 'connecting');
    try {
      this.provider.params = { token: await this.options.token(false) };
    } catch (error) {
      const { message, final } = error as { message: string; final?: boolean };
      return final ? this.stopped(message) : this.later(message);
    }
    if (this.online) this.provider.connect();
  }

  /** The provider would come back by itself, but with the old token and not by the broker's table of codes. */
  private closed(event: CloseEvent | null): void {
    if (!this.online) return;
    this.provider.shouldConnect = false;
    const { code, reason } = event ?? { code: 1006, reason: '' };
    if (verdict(code) === 'stop') this.stopped(reason || `The server closed the connection (${code}).`);
    else this.later(reason);
  }

  private later(why: string): void {
    if (!this.online) return;
    this.error = why || null;
    this.clear();
    this.timer = setTimeout(() => void this.connect(), backoff_ms(this.attempts++, RECONNECT_MS.first, RECONNECT_MS.most));
    this.become('reconnecting');
  }

  private stopped(why: string): void {
    this.error = why;
    this.become('stopped');
  }

  private clear(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  private become(state: DraftState): void {
    this.state = state;
    this.options.onChange();
  }
}
