// The client of the widget protocol: a dashboard that can be changed without a connection. Owns what is confirmed, what waits, and the ways
// to the server: the socket, and posts while there is none. Needs a `WebSocket` and `fetch`, and no page.

import { backoff_ms } from './closing.js';
import { Pace } from './pace.js';
import { Socket } from './socket.js';
import type { TokenSource } from './token.js';
import { BackgroundSync, type Outcome } from './widget-background.js';
import { Board } from './widget-board.js';
import {
  BACKGROUND_SYNC_CONFIG,
  REALTIME_STATE_CONFIG,
  WEBSOCKET_CONFIG,
  isObject,
  randomId,
  same,
  type Change,
  type Conflict,
  type Connection,
  type Data,
  type Json,
  type Mode,
  type Operation,
  type Resolution,
  type WidgetState,
} from './widget-protocol.js';
import { OperationQueue } from './widget-queue.js';

export * from './widget-protocol.js';
export { QueueFull } from './widget-queue.js';

/** Longest wait between two attempts to connect. */
const RECONNECT_MS_MAX = 16_000;
/** The server pings every 30 s; after two missed ones the connection is dead. */
const SILENCE_MS_MAX = 75_000;
/** The server takes 20 messages a second, 40 at once; fewer are sent, so that answers to its pings always fit. */
const PACE = { perSecond: 15, burst: 30 };
/** Codes of refusals that pass. */
const PASSING = new Set(['rate_limited', 'too_many_pending', 'unavailable']);

export interface WidgetClientOptions {
  userId: string;
  dashboardId: string;
  token: TokenSource;
  /** The endpoint as `ws:` and as `http:`; by default `url` of the configuration, on the page's own host. */
  socketUrl: string;
  httpUrl: string;
  mode?: Mode;
  websocket?: Partial<typeof WEBSOCKET_CONFIG>;
  realtime?: Partial<typeof REALTIME_STATE_CONFIG>;
  background?: Partial<typeof BACKGROUND_SYNC_CONFIG>;
  /** A change was refused for good: what a person should know of it. */
  onNotice?: (text: string) => void;
}

/** A decision about a conflict that is on its way. */
interface Decision {
  conflict: Conflict;
  operation: Operation;
  outcome: Data | null;
}

export class WidgetClient {
  readonly websocket: typeof WEBSOCKET_CONFIG;
  readonly realtime: typeof REALTIME_STATE_CONFIG;
  readonly background: typeof BACKGROUND_SYNC_CONFIG;

  private readonly board = new Board();
  private readonly queue: OperationQueue;
  private readonly socket: Socket;
  private readonly sync: BackgroundSync;
  private readonly pace = new Pace(PACE.perSecond, PACE.burst);
  private readonly decisions = new Map<string, Decision>();
  private readonly listeners = new Set<() => void>();

  private mode: Mode;
  private loaded = false;
  /** When the state was asked for on this connection; `null` once it was read, and broadcasts apply to it. */
  private asked_ms: number | null = null;
  private synced = false;
  private flushTimer: ReturnType<typeof setTimeout> | null = null;
  private watch: ReturnType<typeof setInterval> | null = null;
  /** The last token was refused by a post. */
  private renew = false;
  private snapshot: WidgetState | null = null;

  constructor(private readonly options: WidgetClientOptions) {
    this.websocket = { ...WEBSOCKET_CONFIG, ...options.websocket };
    this.realtime = { ...REALTIME_STATE_CONFIG, ...options.realtime };
    this.background = { ...BACKGROUND_SYNC_CONFIG, ...options.background };
    this.mode = options.mode ?? 'live';
    this.queue = new OperationQueue(this.websocket.maxMessageQueueSize, this.realtime.maxPendingOperations);
    this.sync = new BackgroundSync(() => this.post(), () => this.changed(), this.background);
    this.socket = new Socket({
      url: (token) => `${options.socketUrl}?${new URLSearchParams({ dashboardId: options.dashboardId, token })}`,
      token: options.token,
      attemptsMax: this.websocket.reconnectAttempts,
      wait_ms: (attempt) => backoff_ms(attempt, this.websocket.reconnectDelay, RECONNECT_MS_MAX),
      silence_ms_max: SILENCE_MS_MAX,
      onOpen: () => this.ask(),
      onMessage: (message) => {
        this.receive(message);
        this.flush();
        this.changed();
      },
      onLost: () => this.forget(),
      onChange: () => {
        const { state } = this.socket;
        if (state === 'waiting' || state === 'exhausted') this.sync.start();
        else if (state !== 'closed') this.sync.stop();
        this.changed();
      },
    });
  }

  // ---------------------------------------------------------------------------------------------------- what it shows

  /** Calls back after each change; the result ends that. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The same object until something changes. */
  get state(): WidgetState {
    return (this.snapshot ??= this.compose());
  }

  // ---------------------------------------------------------------------------------------------------- what one can do

  /** Goes online, as the mode says. */
  start(): void {
    this.watch ??= setInterval(() => this.look(), 1000);
    this.setMode(this.mode);
  }

  /** Ends for good. */
  stop(): void {
    this.listeners.clear();
    if (this.watch !== null) clearInterval(this.watch);
    this.watch = null;
    this.setMode('offline');
  }

  setMode(mode: Mode): void {
    this.mode = mode;
    if (mode === 'live') return this.socket.open();
    this.sync.stop();
    this.forget();
    this.socket.close();
    if (mode === 'http') this.sync.start();
  }

  /** Connects now instead of later, or again after the server wanted no more. */
  retry(): void {
    if (this.mode === 'live') this.socket.open();
  }

  /** Posts now instead of later. */
  syncNow(): Promise<void> {
    return this.mode === 'offline' || this.socket.state === 'open' ? Promise.resolve() : this.sync.now();
  }

  updateWidget(widgetId: string, data: Data): void {
    this.change({ type: 'WIDGET_UPDATE', payload: { widgetId, data } });
  }

  deleteWidget(widgetId: string): void {
    this.change({ type: 'WIDGET_DELETE', payload: { widgetId } });
  }

  updateLayout(layout: Json): void {
    this.change({ type: 'LAYOUT_UPDATE', payload: { layout } });
  }

  /** Brings an earlier layout back, without a version the one before. */
  restoreLayout(version = this.board.layout.version - 1): void {
    this.change({ type: 'LAYOUT_RESTORE', payload: { version } });
  }

  /** Decides a conflict. `merged` is the whole widget as it shall be; it goes with `merge`. */
  resolveConflict(conflictId: string, resolution: Resolution, merged?: Data): void {
    const meeting = this.synced ? this.queue.part(conflictId) : null;
    if (!meeting) return;
    const { serverData, clientData } = meeting.conflict;
    const outcome = resolution === 'server' ? serverData : resolution === 'client' ? clientData : (merged ?? clientData);
    this.decide({ ...meeting, outcome }, resolution);
    this.changed();
  }

  // ---------------------------------------------------------------------------------------------------- changes

  /** Takes in a change; throws `QueueFull` if too many wait. */
  private change(change: Change): void {
    const before = 'widgetId' in change.payload ? (this.board.widgets.get(change.payload.widgetId)?.data ?? null) : null;
    this.queue.add(change, this.realtime.enableConflictDetection ? this.board.versionOf(change) : undefined, before);
    this.flush();
    this.changed();
  }

  private flush(): void {
    if (this.flushTimer !== null) return;
    for (let operation = this.synced ? this.queue.next() : null; operation; operation = this.queue.next()) {
      const wait_ms = this.pace.take(Date.now());
      if (wait_ms > 0) {
        this.flushTimer = setTimeout(() => {
          this.flushTimer = null;
          this.flush();
          this.changed();
        }, wait_ms);
        return;
      }
      const messageId = this.send(operation.type, operation.payload);
      if (messageId === null) return;
      this.queue.depart(operation, messageId, Date.now());
    }
  }

  private decide(decision: Decision, resolution: Resolution): void {
    const { conflict, operation, outcome } = decision;
    if (conflict.expired) return this.redo(decision);
    // The whole widget: if somebody deleted it, the keys of the change alone would not bring it back.
    const data = resolution !== 'server' && outcome ? { data: outcome } : {};
    const messageId = this.send('CONFLICT_RESOLVED', { conflictId: conflict.conflictId, resolution, ...data });
    if (messageId === null) this.queue.restore(operation);
    else this.decisions.set(messageId, decision);
  }

  /** A decision that the server waited for no longer: a change of its own, on top of what the server has now. */
  private redo({ conflict: { widgetId, serverVersion, serverData }, outcome }: Decision): void {
    if (same(outcome, serverData)) return;
    if (outcome) this.queue.add({ type: 'WIDGET_UPDATE', payload: { widgetId, data: outcome } }, serverVersion, outcome);
    else this.queue.add({ type: 'WIDGET_DELETE', payload: { widgetId } }, serverVersion, null);
    this.flush();
  }

  private send(type: string, payload: object, correlationId?: string): string | null {
    const id = randomId('msg');
    const message = { type, id, timestamp: new Date().toISOString(), userId: this.options.userId, payload };
    return this.socket.send(correlationId === undefined ? message : { ...message, correlationId }) ? id : null;
  }

  // ---------------------------------------------------------------------------------------------------- the connection

  private ask(): void {
    if (this.send('SYNC_REQUEST', {}) !== null) this.asked_ms = Date.now();
  }

  /** The connection is gone: whatever was on its way is in doubt. */
  private forget(): void {
    this.synced = false;
    this.asked_ms = null;
    for (const { operation } of this.decisions.values()) this.queue.restore(operation);
    this.decisions.clear();
    this.queue.recall();
  }

  /** Once a second: an answer that does not come. */
  private look(): void {
    const oldest_ms = Math.min(this.queue.oldestFlight_ms, this.asked_ms ?? Infinity);
    if (Date.now() - oldest_ms >= this.realtime.operationTimeout) this.socket.giveUp('no answer');
  }

  // ---------------------------------------------------------------------------------------------------- messages

  private receive(message: Record<string, unknown>): void {
    const { type } = message;
    const payload = isObject(message.payload) ? message.payload : {};
    const question = typeof message.correlationId === 'string' ? message.correlationId : undefined;
    switch (type) {
      case 'PING':
        return void this.send('PONG', {}, String(message.id));
      case 'SYNC_RESPONSE':
        return this.read(payload);
      case 'ACK':
        return this.acknowledged(question, payload);
      case 'NACK':
        return this.refused(question, payload);
      case 'CONFLICT_DETECTED':
        return this.conflicted(question, payload);
      default:
        // Before the state was read, what happens is in it.
        if (this.synced) this.follow(String(type), payload);
    }
  }

  /** The whole state: changes whose answers were lost turn out to be there, or are sent again. */
  private read(payload: Record<string, unknown>): void {
    this.board.load(payload);
    this.loaded = this.synced = true;
    this.asked_ms = null;
    this.socket.healthy();
    this.queue.release();
    for (const { widgetId } of this.queue.conflicts) this.reconsider(widgetId);
    for (const operation of this.queue.inDoubt) {
      if (this.board.isSatisfied(operation)) {
        this.queue.drop(operation);
        this.queue.settled(operation, this.board.versionOf(operation));
      } else {
        operation.inDoubt = false;
      }
    }
  }

  private acknowledged(messageId: string | undefined, payload: Record<string, unknown>): void {
    const version = Number(payload.version) || undefined;
    const decision = this.decided(messageId);
    if (decision) {
      const { conflict, operation, outcome } = decision;
      this.board.put(conflict.widgetId, version ?? conflict.serverVersion, outcome);
      return this.queue.settled(operation, outcome === null ? undefined : this.board.versionOf(operation));
    }
    const operation = this.queue.land(messageId);
    if (operation) this.accept(operation, version, payload);
  }

  private accept(operation: Operation, version: number | undefined, answer: Record<string, unknown>): void {
    this.board.apply(operation, version);
    this.queue.settled(operation, this.board.versionOf(operation));
    if (operation.type !== 'LAYOUT_RESTORE') return;
    // The layout that came back, if the answer has it; else it is asked for.
    if ('layout' in answer) this.board.apply({ type: 'LAYOUT_UPDATE', payload: { layout: answer.layout as Json } }, version);
    else this.ask();
  }

  private refused(messageId: string | undefined, { code, message }: Record<string, unknown>): void {
    const why = typeof message === 'string' ? message : String(code ?? 'refused');
    const decision = this.decided(messageId);
    if (decision) {
      if (code === 'not_found') return this.redo(decision);
      this.queue.restore(decision.operation);
      this.notice(`The decision was not taken: ${why}`);
      return this.ask();
    }
    if (this.queue.expire(messageId)) return;
    const operation = this.queue.land(messageId);
    if (!operation) return;
    if (PASSING.has(String(code))) {
      this.pace.rest(Date.now());
      return this.queue.restore(operation);
    }
    this.notice(`${title(operation)} was refused: ${why}`);
    this.queue.settled(operation, this.board.versionOf(operation));
    this.ask();
  }

  private conflicted(messageId: string | undefined, payload: Record<string, unknown>): void {
    const widgetId = String(payload.widgetId);
    const operation = this.decided(messageId)?.operation ?? this.queue.land(messageId ?? this.queue.flightTo(`widget:${widgetId}`));
    if (!operation) return;
    const serverData = isObject(payload.serverData) ? (payload.serverData as Data) : null;
    const serverVersion = Number(payload.serverVersion) || 0;
    // A change names some keys; as a person sees it, the rest of the widget belongs to both sides.
    const mine = operation.type === 'WIDGET_UPDATE' ? operation.payload.data : null;
    const clientData = mine && { ...(serverData ?? operation.before), ...mine };
    this.board.put(widgetId, serverVersion, serverData);
    const conflict = { conflictId: String(payload.conflictId), widgetId, serverVersion, serverData, clientData, expired: false };
    // Both want the same: nothing is left to decide, but the server waits for a decision.
    if (same(serverData, clientData)) this.decide({ conflict, operation, outcome: serverData }, 'server');
    else this.queue.meet(conflict, operation, messageId);
  }

  private decided(messageId: string | undefined): Decision | undefined {
    const decision = messageId === undefined ? undefined : this.decisions.get(messageId);
    if (decision) this.decisions.delete(messageId as string);
    return decision;
  }

  /** Somebody else's change. It says no version: each change heard of is one more. */
  private follow(type: string, payload: Record<string, unknown>): void {
    const widgetId = String(payload.widgetId);
    if (Array.isArray(payload.operations)) {
      for (const operation of payload.operations) if (isObject(operation) && isObject(operation.payload)) this.follow(String(operation.type), operation.payload);
    } else if (type === 'WIDGET_UPDATE' && isObject(payload.data)) {
      // A widget that is new here may have been deleted before, and its version is not 1 then.
      if (!this.board.widgets.has(widgetId) && this.asked_ms === null) this.ask();
      this.board.apply({ type, payload: { widgetId, data: payload.data as Data } });
    } else if (type === 'WIDGET_DELETE') {
      this.board.apply({ type, payload: { widgetId } });
    } else if (type === 'LAYOUT_UPDATE') {
      this.board.apply({ type, payload: { layout: (payload.layout ?? null) as Json } });
    }
    if (type.startsWith('WIDGET_')) this.reconsider(widgetId);
  }

  /** What a decision is about has changed meanwhile. */
  private reconsider(widgetId: string): void {
    const { version, data } = this.board.widgets.get(widgetId) ?? { version: 0, data: null };
    this.queue.update(widgetId, version, data);
  }

  // ---------------------------------------------------------------------------------------------------- without a socket

  /** One run of the background sync; where nothing waits, a look whether the server is there. */
  private async post(): Promise<Outcome> {
    let left = this.background.maxQueueSize;
    do {
      const batch = this.queue.batch(Math.min(left, this.realtime.maxPendingOperations));
      for (const operation of batch) operation.inDoubt = true;
      const operations = batch.map(({ operationId, type, payload }) => ({ operationId, type, payload }));
      const url = `${this.options.httpUrl}?${new URLSearchParams({ dashboardId: this.options.dashboardId })}`;
      const headers = { authorization: `Bearer ${await this.options.token(this.renew)}`, 'content-type': 'application/json' };
      const response = await fetch(url, batch.length ? { method: 'POST', headers, body: JSON.stringify({ type: 'SYNC', operations }) } : { headers });
      this.renew = response.status === 401;
      const answer: unknown = await response.json().catch(() => null);
      if (!response.ok || !isObject(answer)) return 'failed';
      const results: unknown[] = Array.isArray(answer.results) ? answer.results : [];
      const settled = results.filter((result) => isObject(result) && this.posted(batch, result)).length;
      this.changed();
      if (settled < batch.length) return 'failed';
      left -= batch.length || left;
    } while (left > 0 && this.mode !== 'offline' && this.socket.state !== 'open');
    // The server is there, so the socket may come back.
    if (this.mode === 'live') this.socket.open();
    return this.mode === 'http' || (this.mode === 'live' && this.socket.state !== 'open') ? 'done' : 'stop';
  }

  /** The result of one operation; false if it has to be tried again. */
  private posted(batch: Operation[], { operationId, success, version, code, error }: Record<string, unknown>): boolean {
    const operation = batch.find((sent) => sent.operationId === operationId);
    // The socket may have come back meanwhile and taken it over.
    if (!operation?.inDoubt) return true;
    operation.inDoubt = false;
    if (success === true) {
      this.queue.drop(operation);
      this.board.apply(operation, Number(version) || undefined);
      this.queue.settled(operation, this.board.versionOf(operation));
      return true;
    }
    // The server remembers this answer to this id.
    operation.operationId = randomId('op');
    operation.held = code === 'conflict';
    if (operation.held || PASSING.has(String(code))) return operation.held;
    this.queue.drop(operation);
    this.notice(`${title(operation)} was refused: ${String(error ?? code)}`);
    return true;
  }

  // ---------------------------------------------------------------------------------------------------- state

  private notice(text: string): void {
    this.options.onNotice?.(text);
  }

  private changed(): void {
    this.snapshot = null;
    for (const listener of this.listeners) listener();
  }

  private connection(): Connection {
    switch (this.socket.state) {
      case 'open':
        return 'connected';
      case 'waiting':
        return 'reconnecting';
      case 'exhausted':
        return 'http';
      case 'closed':
        return this.mode === 'http' ? 'http' : 'offline';
      default:
        return this.socket.state;
    }
  }

  private compose(): WidgetState {
    const operations = [...this.queue.all, ...[...this.decisions.values()].map(({ operation }) => operation)];
    const { widgets, layout, touched } = this.board.with(operations);
    const { conflicts } = this.queue;
    const inConflict = new Set(conflicts.map(({ widgetId }) => widgetId));
    return {
      connection: this.connection(),
      mode: this.mode,
      sync: conflicts.length ? 'conflict' : operations.length === 0 ? 'synced' : this.synced ? 'syncing' : 'waiting',
      loaded: this.loaded,
      widgets: [...widgets].map(([id, { version, data }]) => ({ id, version, data, pending: touched.has(`widget:${id}`), conflicted: inConflict.has(id) })),
      layout,
      layoutVersion: this.board.layout.version,
      layouts: this.board.layouts,
      pendingOperations: operations.length,
      conflicts,
      nextSync_ms: this.sync.due_ms,
      reconnectAttempts: this.socket.attempts,
      error: this.socket.error,
    };
  }
}

/** What a notice calls a change. */
function title(operation: Operation): string {
  switch (operation.type) {
    case 'WIDGET_UPDATE':
      return 'A change of a widget';
    case 'WIDGET_DELETE':
      return 'Deleting a widget';
    case 'LAYOUT_UPDATE':
      return 'The new layout';
    case 'LAYOUT_RESTORE':
      return `Layout ${operation.payload.version}`;
  }
}
