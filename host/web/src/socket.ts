// A WebSocket that comes back: a new one whenever the last is lost, with a token that is good. Owns the socket, the attempts and their
// timers; knows nothing of what is said over it, and needs no page.

import { verdict } from './closing.js';
import type { TokenSource } from './token.js';

/** Close code of a connection that this client gives up. */
const GIVEN_UP = 4000;

/**
 * `closed`: not wanted; `connecting`: the first attempt; `waiting`: lost, and between attempts or in one; `exhausted`: no attempt is left;
 * `stopped`: the server wants no more of them.
 */
export type SocketState = 'closed' | 'connecting' | 'open' | 'waiting' | 'exhausted' | 'stopped';

export interface SocketOptions {
  /** The address with this token. */
  url: (token: string) => string;
  token: TokenSource;
  /** Attempts in a row after which there are no more until `open` is called. */
  attemptsMax: number;
  /** How long to wait before an attempt, counted from 0. */
  wait_ms: (attempt: number) => number;
  /** A connection silent for so long is dead, whatever it looks like. */
  silence_ms_max: number;
  onOpen: () => void;
  onMessage: (message: Record<string, unknown>) => void;
  /** It was open and is no more. */
  onLost: (event: { code: number; reason: string }) => void;
  /** Anything a person may want to see has changed. */
  onChange: () => void;
}

export class Socket {
  state: SocketState = 'closed';
  /** Attempts since a connection was last good for something. */
  attempts = 0;
  /** Why it is `stopped`, or what went wrong last. */
  error: string | null = null;
  /** When the next attempt is. */
  retry_ms: number | null = null;

  private socket: WebSocket | null = null;
  private renew = false;
  private heard_ms = 0;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private watch: ReturnType<typeof setInterval> | null = null;
  /** Counts connections, so that what belongs to an earlier one is known as such. */
  private generation = 0;

  constructor(private readonly options: SocketOptions) {}

  /** Connects, now, with all attempts before it. */
  open(): void {
    if (this.state === 'open' || this.state === 'connecting') return;
    this.attempts = 0;
    this.error = null;
    void this.connect();
  }

  /** Ends it, and comes back no more. */
  close(code = 1000): void {
    const { socket } = this;
    this.abandon();
    socket?.close(code);
    this.become('closed');
  }

  /** Gives up a connection that is of no use, and makes another. */
  giveUp(why: string): void {
    const { socket } = this;
    if (this.state !== 'open' || !socket) return;
    this.abandon();
    socket.close(GIVEN_UP, why);
    this.lost(GIVEN_UP, why, true);
  }

  /** The connection does what it is for: the next failure is the first again. */
  healthy(): void {
    this.attempts = 0;
    this.error = null;
  }

  send(message: Record<string, unknown>): boolean {
    if (this.state !== 'open' || this.socket?.readyState !== 1) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  private async connect(): Promise<void> {
    this.abandon();
    const mine = this.generation;
    this.become(this.attempts ? 'waiting' : 'connecting');
    let token: string;
    try {
      token = await this.options.token(this.renew);
    } catch (error) {
      if (mine !== this.generation) return;
      const { message, final } = error as { message: string; final?: boolean };
      return final ? this.stopped(message) : this.later(message);
    }
    if (mine !== this.generation) return;
    const socket = (this.socket = new WebSocket(this.options.url(token)));
    let opened = false;
    socket.onopen = () => {
      if (mine !== this.generation) return;
      opened = true;
      this.renew = false;
      this.heard_ms = Date.now();
      this.watch = setInterval(() => { if (Date.now() - this.heard_ms > this.options.silence_ms_max) this.giveUp('silence'); }, 1000);
      this.become('open');
      this.options.onOpen();
    };
    socket.onmessage = ({ data }) => {
      if (mine !== this.generation) return;
      this.heard_ms = Date.now();
      const message = parse(data);
      if (message) this.options.onMessage(message);
    };
    socket.onclose = ({ code, reason }) => {
      if (mine !== this.generation) return;
      this.abandon();
      this.lost(code, reason, opened);
    };
  }

  /** Whatever comes of the current socket and timers concerns nobody any more. */
  private abandon(): void {
    this.generation++;
    this.socket = null;
    this.retry_ms = null;
    if (this.timer !== null) clearTimeout(this.timer);
    if (this.watch !== null) clearInterval(this.watch);
    this.timer = this.watch = null;
  }

  private lost(code: number, reason: string, opened: boolean): void {
    const what = verdict(code);
    // A refused upgrade looks like no network from here; a new token mends it if that was it.
    this.renew = what === 'renew' || !opened;
    const why = reason || (opened ? `the connection was lost (${code})` : 'the server does not answer');
    this.state = 'waiting';
    if (opened) this.options.onLost({ code, reason });
    if (what === 'stop') this.stopped(why);
    else this.later(why);
  }

  private later(why: string): void {
    this.error = why;
    if (this.attempts >= this.options.attemptsMax) return this.become('exhausted');
    const wait_ms = this.options.wait_ms(this.attempts++);
    this.retry_ms = Date.now() + wait_ms;
    this.timer = setTimeout(() => void this.connect(), wait_ms);
    this.become('waiting');
  }

  private stopped(why: string): void {
    this.error = why;
    this.become('stopped');
  }

  private become(state: SocketState): void {
    this.state = state;
    this.options.onChange();
  }
}

function parse(data: unknown): Record<string, unknown> | null {
  try {
    const message: unknown = JSON.parse(String(data));
    return typeof message === 'object' && message !== null && !Array.isArray(message) ? (message as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
