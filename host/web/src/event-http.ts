// The HTTP side of the event bus: what there is, how it is, and what was. Owns the headers that every request needs.

import type { BusEvent } from './event-client.js';
import { errorText, type TokenSource } from './token.js';

export interface BusStatus {
  server_running: boolean;
  status: string;
  health: string;
  metrics: {
    total_connections: number;
    active_connections: number;
    events_sent: number;
    events_received?: number;
    last_activity: string | null;
    event_history_size: number;
    client_count: number;
    uptime_ms?: number;
    users?: number;
    channels?: { channel: string; subscribers: number; history: number }[];
  };
}

/** What there is to name in filters and subscriptions. */
export interface Catalogue {
  channels: string[];
  event_types: string[];
  sources: string[];
}

export interface HistoryPage {
  /** Oldest first. */
  events: BusEvent[];
  hasMore: boolean;
}

export class EventHttp {
  constructor(
    private readonly base: string,
    private readonly tenantId: string,
    private readonly userId: string,
    private readonly token: TokenSource,
  ) {}

  async catalogue(): Promise<Catalogue> {
    const { websocket } = await this.get<{ websocket: Catalogue }>('');
    return websocket;
  }

  async status(): Promise<BusStatus> {
    const { websocket } = await this.get<{ websocket: BusStatus }>('/status', { detailed: 'true' });
    return websocket;
  }

  /** A page of the past of a channel: the newest, or those before an event. */
  history(channel: string, limit: number, before?: string): Promise<HistoryPage> {
    return this.get<HistoryPage>('/history', { channel, limit: String(limit), ...(before === undefined ? {} : { before }) });
  }

  private async get<T>(path: string, query: Record<string, string> = {}): Promise<T> {
    const parameters = new URLSearchParams(query).toString();
    const ask = async (renew: boolean): Promise<Response> =>
      fetch(`${this.base}${path}${parameters && `?${parameters}`}`, {
        cache: 'no-store',
        headers: { authorization: `Bearer ${await this.token(renew)}`, 'x-tenant-id': this.tenantId, 'x-user-id': this.userId },
      });
    const first = await ask(false);
    const response = first.status === 401 ? await ask(true) : first;
    const answer: unknown = await response.json().catch(() => null);
    if (!response.ok) throw new Error(errorText(answer) ?? `HTTP ${response.status}`);
    return answer as T;
  }
}
