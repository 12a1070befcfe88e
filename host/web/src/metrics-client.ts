// The client of the owner metrics: figures as they come, and what happens to bookings. Owns its socket; needs no page.

import { backoff_ms } from './closing.js';
import { Socket, type SocketState } from './socket.js';
import type { TokenSource } from './token.js';

/** Figures come every 5 s; without any for so long the connection is dead. */
const SILENCE_MS_MAX = 20_000;
const PING_INTERVAL_MS = 15_000;
const RECONNECT_MS = { first: 500, most: 15_000 };
/** Kept in memory: an hour of figures, and the last events. */
const POINTS_MAX = 720;
const EVENTS_MAX = 100;

export interface Metrics {
  revenue: { daily: number; monthly: number; growth: number };
  bookings: { pending: number; confirmed: number; total: number };
  listings: { active: number; published: number; total: number };
  occupancy: { percentage: number; booked: number; available: number };
}

export interface Point {
  at_ms: number;
  metrics: Metrics;
}

/** What a server published for the owner. */
export interface OwnerEvent {
  key: number;
  type: string;
  at_ms: number;
  data: Record<string, unknown>;
}

export class MetricsClient {
  /** Oldest first. */
  points: Point[] = [];
  /** Newest first. */
  events: OwnerEvent[] = [];
  /** The figures are the last known ones, since the database does not answer. */
  stale = false;
  connectionId: string | null = null;
  /** Events that were lost while nobody was connected. */
  eventsDropped = 0;
  /** Between a ping and its answer. */
  latency_ms: number | null = null;

  private readonly socket: Socket;
  private pings: ReturnType<typeof setInterval> | null = null;
  private made = 0;

  constructor(url: string, token: TokenSource, private readonly onChange: () => void) {
    this.socket = new Socket({
      url: (value) => `${url}?${new URLSearchParams({ token: value })}`,
      token,
      attemptsMax: Infinity,
      wait_ms: (attempt) => backoff_ms(attempt, RECONNECT_MS.first, RECONNECT_MS.most),
      silence_ms_max: SILENCE_MS_MAX,
      onOpen: () => this.ping(),
      onMessage: (message) => this.receive(message),
      onLost: () => { this.latency_ms = this.connectionId = null; },
      onChange,
    });
  }

  get state(): SocketState {
    return this.socket.state;
  }

  get error(): string | null {
    return this.socket.error;
  }

  get latest(): Point | null {
    return this.points.at(-1) ?? null;
  }

  start(): void {
    this.pings ??= setInterval(() => this.ping(), PING_INTERVAL_MS);
    this.socket.open();
  }

  stop(): void {
    if (this.pings !== null) clearInterval(this.pings);
    this.pings = null;
    this.socket.close();
  }

  private ping(): void {
    this.socket.send({ type: 'ping', timestamp: Date.now() });
  }

  private receive(message: Record<string, unknown>): void {
    const data = (typeof message.data === 'object' && message.data !== null ? message.data : {}) as Record<string, unknown>;
    switch (message.type) {
      case 'connection_established':
        this.socket.healthy();
        this.connectionId = String(data.connectionId);
        this.eventsDropped += Number(data.eventsDropped) || 0;
        break;
      case 'metrics_update':
        this.stale = message.stale === true;
        this.points.push({ at_ms: Number(message.timestamp), metrics: data as unknown as Metrics });
        if (this.points.length > POINTS_MAX) this.points.shift();
        break;
      case 'pong':
        this.latency_ms = Math.max(0, Date.now() - Number(data.timestamp));
        break;
      default:
        this.events.unshift({ key: ++this.made, type: String(message.type), at_ms: Number(data.timestamp ?? message.timestamp) || Date.now(), data });
        this.events.length = Math.min(this.events.length, EVENTS_MAX);
    }
    this.onChange();
  }
}
