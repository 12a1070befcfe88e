// The words of the widget protocol: message types, payloads and the bounds that every client keeps. Owns no behaviour.

/** The socket. */
export const WEBSOCKET_CONFIG = { url: '/api/realtime', reconnectAttempts: 5, reconnectDelay: 1000, maxMessageQueueSize: 1000 };
/** What is on its way. */
export const REALTIME_STATE_CONFIG = { maxPendingOperations: 100, operationTimeout: 30000, enableConflictDetection: true };
/** What happens while there is no socket. */
export const BACKGROUND_SYNC_CONFIG = { syncInterval: 30000, maxQueueSize: 500, retryAttempts: 3, retryDelay: 5000 };

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Data = { [key: string]: Json };

/** A change somebody makes. */
export type Change =
  | { type: 'WIDGET_UPDATE'; payload: { widgetId: string; data: Data; baseVersion?: number } }
  | { type: 'WIDGET_DELETE'; payload: { widgetId: string; baseVersion?: number } }
  | { type: 'LAYOUT_UPDATE'; payload: { layout: Json; baseVersion?: number } }
  | { type: 'LAYOUT_RESTORE'; payload: { version: number } };

/** A change under the id by which the server tells a retry from a second one. */
export type Operation = Change & {
  operationId: string;
  /** Its place among all changes of this client. */
  readonly order: number;
  /** The widget as it was, should somebody have deleted it meanwhile. */
  readonly before: Data | null;
  /** It was sent, and no answer came: the server may have it. */
  inDoubt: boolean;
  /** It met a conflict over HTTP, and waits for the socket, where conflicts can be settled. */
  held: boolean;
};

/** Two changes of one widget that knew nothing of each other. `null` stands for a deletion. */
export interface Conflict {
  conflictId: string;
  widgetId: string;
  serverVersion: number;
  serverData: Data | null;
  /** The whole widget as this client would have it. */
  clientData: Data | null;
  /** The server waits for the decision no longer: the change must be made anew. */
  expired: boolean;
}

export type Resolution = 'client' | 'server' | 'merge';

export interface Layout {
  version: number;
  layout: Json;
}

/** `live`: by the socket; `http`: by posts alone; `offline`: not at all. */
export type Mode = 'live' | 'http' | 'offline';
/** `http`: there is no socket, and posts go instead; `stopped`: the server wants neither. */
export type Connection = 'connecting' | 'connected' | 'reconnecting' | 'http' | 'offline' | 'stopped';

export interface Widget {
  id: string;
  version: number;
  data: Data;
  /** Has changes that the server did not confirm yet. */
  pending: boolean;
  /** Waits for somebody to decide a conflict. */
  conflicted: boolean;
}

/** All there is to show. */
export interface WidgetState {
  connection: Connection;
  mode: Mode;
  /** The sync indicator. */
  sync: 'synced' | 'syncing' | 'waiting' | 'conflict';
  /** The state was read from the server at least once. */
  loaded: boolean;
  widgets: Widget[];
  layout: Json;
  layoutVersion: number;
  /** Layouts this client has seen, newest first. */
  layouts: Layout[];
  pendingOperations: number;
  conflicts: Conflict[];
  /** When the next post is due. */
  nextSync_ms: number | null;
  reconnectAttempts: number;
  error: string | null;
}

export const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);

/** What a change is about: changes of one target keep their order, and one at a time is on its way. */
export const targetOf = (change: Change): string => (change.type === 'WIDGET_UPDATE' || change.type === 'WIDGET_DELETE' ? `widget:${change.payload.widgetId}` : 'layout');

/** A random id. */
export function randomId(prefix: string): string {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return `${prefix}-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

/** Whether two JSON values are the same, whatever the order of keys. */
export function same(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((value, at) => same(value, b[at]));
  if (!isObject(a) || !isObject(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}
