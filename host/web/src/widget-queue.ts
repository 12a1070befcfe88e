// The changes that are not confirmed yet: those that wait, those on their way and those in conflict. Owns their order and bounds. Pure.

import { randomId, targetOf, type Change, type Conflict, type Data, type Operation } from './widget-protocol.js';

/** The queue holds as many changes as it may. */
export class QueueFull extends Error {
  constructor(most: number) {
    super(`${most} changes wait already; go online first`);
  }
}

interface Flight {
  operation: Operation;
  sentAt_ms: number;
}

interface Meeting {
  conflict: Conflict;
  operation: Operation;
  /** The message that met it. */
  messageId: string | undefined;
}

export class OperationQueue {
  private waiting: Operation[] = [];
  private flights = new Map<string, Flight>();
  private meetings = new Map<string, Meeting>();
  private made = 0;

  constructor(
    private readonly queueMax: number,
    private readonly pendingMax: number,
  ) {}

  /** All of them in the order they were made. */
  get all(): Operation[] {
    const flying = [...this.flights.values(), ...this.meetings.values()].map(({ operation }) => operation);
    return [...flying, ...this.waiting].sort((a, b) => a.order - b.order);
  }

  get size(): number {
    return this.waiting.length + this.flights.size + this.meetings.size;
  }

  get conflicts(): Conflict[] {
    return [...this.meetings.values()].map(({ conflict }) => conflict);
  }

  /**
   * Takes in a change made on top of version `base` of its target (`undefined`: the server does not know it), a widget that was like
   * `before`. Changes of one target that wait together become one.
   */
  add(change: Change, base: number | undefined, before: Data | null): void {
    const target = targetOf(change);
    const last = this.waiting.findLast((operation) => targetOf(operation) === target && !operation.inDoubt);
    if (change.type === 'WIDGET_UPDATE' && last?.type === 'WIDGET_UPDATE') {
      last.payload = { ...last.payload, data: { ...last.payload.data, ...change.payload.data } };
      return;
    }
    if (change.type === 'LAYOUT_UPDATE' && last?.type === 'LAYOUT_UPDATE') {
      last.payload = { ...last.payload, layout: change.payload.layout };
      return;
    }
    if (change.type === 'WIDGET_DELETE') {
      if (last?.type === 'WIDGET_DELETE') return;
      // An update that nobody saw needs no delete after it.
      this.waiting = this.waiting.filter((operation) => operation !== last);
      if (base === undefined && !this.all.some((operation) => targetOf(operation) === target)) return;
    }
    if (this.size >= this.queueMax) throw new QueueFull(this.queueMax);
    const operation = { ...structuredClone(change), operationId: randomId('op'), order: ++this.made, before, inDoubt: false, held: false };
    if (operation.type === 'WIDGET_UPDATE' || operation.type === 'WIDGET_DELETE') operation.payload.baseVersion = base;
    this.waiting.push(operation);
  }

  /** The first change that may be sent now. */
  next(): Operation | null {
    if (this.flights.size >= this.pendingMax) return null;
    return this.sendable().next().value ?? null;
  }

  /** Changes that may be sent together, at most so many, without those that HTTP cannot settle. */
  batch(most: number): Operation[] {
    const batch: Operation[] = [];
    for (const operation of this.sendable()) {
      if (batch.length === most) break;
      if (!operation.held) batch.push(operation);
    }
    return batch;
  }

  /** It was sent in a message. */
  depart(operation: Operation, messageId: string, now_ms: number): void {
    this.waiting = this.waiting.filter((other) => other !== operation);
    this.flights.set(messageId, { operation, sentAt_ms: now_ms });
  }

  /** The answer to a message came: its change, which is no longer this queue's. */
  land(messageId: string | undefined): Operation | null {
    const flight = messageId === undefined ? undefined : this.flights.get(messageId);
    if (!flight) return null;
    this.flights.delete(messageId as string);
    return flight.operation;
  }

  /** The message of the change of this target that is on its way. */
  flightTo(target: string): string | undefined {
    for (const [messageId, { operation }] of this.flights) if (targetOf(operation) === target) return messageId;
    return undefined;
  }

  /** Its target has this version now: changes made on top of it start from there. */
  settled(change: Change, version: number | undefined): void {
    const target = targetOf(change);
    for (const operation of this.waiting) {
      if (targetOf(operation) === target && (operation.type === 'WIDGET_UPDATE' || operation.type === 'WIDGET_DELETE')) operation.payload.baseVersion = version;
    }
  }

  /** Forgets a change that waits. */
  drop(operation: Operation): void {
    this.waiting = this.waiting.filter((other) => other !== operation);
  }

  /** Puts a change back, at its old place. */
  restore(operation: Operation): void {
    if (this.waiting.includes(operation)) return;
    this.waiting.push(operation);
    this.waiting.sort((a, b) => a.order - b.order);
  }

  meet(conflict: Conflict, operation: Operation, messageId: string | undefined): void {
    this.meetings.set(conflict.conflictId, { conflict, operation, messageId });
  }

  /** The server waits no longer for the decision about this message; false if there is none to make. */
  expire(messageId: string | undefined): boolean {
    const meeting = [...this.meetings.values()].find((open) => messageId !== undefined && open.messageId === messageId);
    if (meeting) meeting.conflict = { ...meeting.conflict, expired: true };
    return meeting !== undefined;
  }

  /** Others went on changing what a decision is about. */
  update(widgetId: string, serverVersion: number, serverData: Data | null): void {
    for (const meeting of this.meetings.values()) {
      if (meeting.conflict.widgetId !== widgetId) continue;
      const mine = meeting.operation.type === 'WIDGET_UPDATE' ? meeting.operation.payload.data : null;
      meeting.conflict = { ...meeting.conflict, serverVersion, serverData, clientData: mine && { ...(serverData ?? meeting.operation.before), ...mine } };
    }
  }

  /** The conflict is settled, or settled differently: it and its change. */
  part(conflictId: string): Meeting | null {
    const meeting = this.meetings.get(conflictId);
    this.meetings.delete(conflictId);
    return meeting ?? null;
  }

  /** The connection is gone: what was on its way is in doubt, and conflicts will be found again. */
  recall(): void {
    for (const { operation } of this.flights.values()) {
      operation.inDoubt = true;
      this.restore(operation);
    }
    this.flights.clear();
    for (const { operation } of this.meetings.values()) this.restore(operation);
    this.meetings.clear();
  }

  /** Changes whose answer may have been lost. */
  get inDoubt(): Operation[] {
    return this.waiting.filter(({ inDoubt }) => inDoubt);
  }

  /** There is a socket again. */
  release(): void {
    for (const operation of this.waiting) operation.held = false;
  }

  /** When the oldest message without an answer was sent. */
  get oldestFlight_ms(): number {
    return Math.min(Infinity, ...[...this.flights.values()].map(({ sentAt_ms }) => sentAt_ms));
  }

  private *sendable(): Generator<Operation, undefined> {
    const busy = new Set([...this.flights.values(), ...this.meetings.values()].map(({ operation }) => targetOf(operation)));
    for (const operation of this.waiting) {
      const target = targetOf(operation);
      if (!busy.has(target)) yield operation;
      busy.add(target);
    }
    return undefined;
  }
}
