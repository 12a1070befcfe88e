// The client of a tenant's event bus, as a plain class: the options and results of the hook it replaces. Owns its socket, the filter and the
// subscriptions, which it renews after each reconnect; needs no page.

import { Socket } from './socket.js';
import type { TokenSource } from './token.js';

/** The host pings the socket itself; a connection is given up by the system when that fails. */
const SILENCE_MS_MAX = Infinity;
/** Ids of events that were seen, so that a replay shows none twice. */
const SEEN_MAX = 2_000;

export type Priority = 'low' | 'normal' | 'high' | 'critical';
export const PRIORITIES: readonly Priority[] = ['low', 'normal', 'high', 'critical'];

export interface BusEvent {
  id: string;
  eventType: string;
  data: Record<string, unknown>;
  timestamp: string;
  source: string;
  priority: Priority;
  tenantId: string;
  userId: string;
  channel?: string;
}

/** An empty or absent list lets everything through. */
export interface Filters {
  eventTypes?: string[];
  sources?: string[];
  priority?: Priority[];
  users?: string[];
}

export type ConnectionStatus = 'connecting' | 'connected' | 'disconnected' | 'error';

export interface EventClientOptions {
  url: string;
  tenantId: string;
  userId: string;
  token?: TokenSource;
  filters?: Filters;
  onMessage?: (event: BusEvent) => void;
  onOpen?: () => void;
  onClose?: (event: { code: number; reason: string }) => void;
  onError?: (error: string) => void;
  reconnectInterval?: number;
  maxReconnectAttempts?: number;
  enabled?: boolean;
  autoReconnect?: boolean;
  /** Events of each channel that are asked for again after a reconnect; those already seen are left out. */
  resumeEvents?: number;
}

export interface Subscription {
  channel: string;
  eventTypes: string[];
}

export class EventClient {
  lastMessage: BusEvent | null = null;
  filters: Filters;
  /** The channels of this client, as the server names them. */
  readonly subscriptions = new Map<string, Subscription>();

  private readonly socket: Socket;
  /** Channels the server subscribes every new connection to. */
  private readonly given = new Set<string>();
  private readonly listeners = new Set<() => void>();
  private readonly seen = new Set<string>();
  private opened = false;

  constructor(private readonly options: EventClientOptions) {
    this.filters = options.filters ?? {};
    const identity = { tenant_id: options.tenantId, user_id: options.userId };
    const { reconnectInterval = 5000, maxReconnectAttempts = 10, autoReconnect = true, enabled = true } = options;
    this.socket = new Socket({
      url: (token) => `${options.url}?${new URLSearchParams(token ? { ...identity, token } : identity)}`,
      token: options.token ?? (() => Promise.resolve('')),
      attemptsMax: autoReconnect ? maxReconnectAttempts : 0,
      wait_ms: () => reconnectInterval,
      silence_ms_max: SILENCE_MS_MAX,
      onOpen: () => this.begin(),
      onMessage: (message) => this.receive(message),
      onLost: (event) => options.onClose?.(event),
      onChange: () => {
        if ((this.socket.state === 'exhausted' || this.socket.state === 'stopped') && this.socket.error) options.onError?.(this.socket.error);
        this.changed();
      },
    });
    if (enabled) queueMicrotask(() => this.connect());
  }

  get isConnected(): boolean {
    return this.socket.state === 'open';
  }

  get connectionStatus(): ConnectionStatus {
    switch (this.socket.state) {
      case 'open':
        return 'connected';
      case 'connecting':
      case 'waiting':
        return 'connecting';
      case 'closed':
        return 'disconnected';
      default:
        return 'error';
    }
  }

  get reconnectAttempts(): number {
    return this.socket.attempts;
  }

  get error(): string | null {
    return this.socket.error;
  }

  /** When the next attempt to connect is. */
  get retry_ms(): number | null {
    return this.socket.retry_ms;
  }

  connect(): void {
    this.socket.open();
  }

  disconnect(): void {
    this.socket.close();
  }

  /** Sends an event of this client; false without a connection. */
  sendMessage(message: { type: string; data: unknown; channel?: string; source?: string; priority?: Priority }): boolean {
    return this.socket.send(message);
  }

  /** Replaces the filter, now and after each reconnect. */
  updateFilters(filters: Filters): void {
    this.filters = filters;
    this.socket.send({ type: 'filters', filters });
    this.changed();
  }

  /** Subscribes, with up to `replay` events of the past first. */
  subscribe(channel: string, eventTypes: string[] = [], replay = 0): boolean {
    return this.socket.send({ type: 'subscribe', channel, ...(eventTypes.length ? { eventTypes } : {}), ...(replay ? { replay } : {}) });
  }

  unsubscribe(channel: string): boolean {
    return this.socket.send({ type: 'unsubscribe', channel });
  }

  /** Calls back after each change; the result ends that. */
  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private begin(): void {
    if (Object.values(this.filters).some((list) => list?.length)) this.socket.send({ type: 'filters', filters: this.filters });
    const replay = this.opened ? (this.options.resumeEvents ?? 100) : 0;
    for (const channel of this.given) if (!this.subscriptions.has(channel)) this.unsubscribe(channel);
    for (const { channel, eventTypes } of this.subscriptions.values()) this.subscribe(channel, eventTypes, replay);
    this.opened = true;
    this.options.onOpen?.();
  }

  private receive(message: Record<string, unknown>): void {
    const event = message as unknown as BusEvent;
    if (typeof event.eventType !== 'string') return;
    const { id } = event;
    if (this.seen.has(id)) return;
    this.seen.add(id);
    if (this.seen.size > SEEN_MAX) this.seen.delete(this.seen.values().next().value as string);
    if (event.source === 'system') this.obey(event);
    this.lastMessage = event;
    this.options.onMessage?.(event);
    this.changed();
  }

  /** What the server says about this connection. */
  private obey({ eventType, data }: BusEvent): void {
    if (eventType === 'connection') {
      this.socket.healthy();
      for (const channel of Array.isArray(data.channels) ? data.channels.map(String) : []) {
        if (this.given.has(channel)) continue;
        this.given.add(channel);
        this.subscriptions.set(channel, { channel, eventTypes: [] });
      }
    } else if (eventType === 'subscribed' && typeof data.channel === 'string') {
      this.subscriptions.set(data.channel, { channel: data.channel, eventTypes: Array.isArray(data.eventTypes) ? data.eventTypes.map(String) : [] });
    } else if (eventType === 'unsubscribed' && typeof data.channel === 'string') {
      this.subscriptions.delete(data.channel);
    }
  }

  private changed(): void {
    for (const listener of this.listeners) listener();
  }
}
