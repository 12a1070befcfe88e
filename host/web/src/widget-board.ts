// A dashboard as the server has it, and as it looks with changes on top that the server does not have yet. Pure: no clock, no socket.

import { isObject, same, targetOf, type Change, type Data, type Json, type Layout, type Operation } from './widget-protocol.js';

export interface Versioned {
  version: number;
  data: Data;
}

export class Board {
  widgets = new Map<string, Versioned>();
  layout: Layout = { version: 0, layout: null };
  /** Earlier layouts that passed by, newest first, for a look at what a restore would bring. */
  layouts: Layout[] = [];

  /** Takes the whole state over from a `SYNC_RESPONSE`. */
  load(payload: Record<string, unknown>): void {
    this.widgets = new Map();
    for (const [id, widget] of Object.entries(isObject(payload.widgets) ? payload.widgets : {})) {
      if (isObject(widget)) this.widgets.set(id, { version: Number(widget.version) || 1, data: (isObject(widget.data) ? widget.data : {}) as Data });
    }
    this.setLayout({ version: Number(payload.layoutVersion) || 0, layout: (payload.layout ?? null) as Json });
  }

  /** Applies a change that the server accepted. Without a version it is the next one. */
  apply(change: Change, version?: number): void {
    switch (change.type) {
      case 'WIDGET_UPDATE': {
        const known = this.widgets.get(change.payload.widgetId);
        this.widgets.set(change.payload.widgetId, { version: version ?? (known?.version ?? 0) + 1, data: { ...known?.data, ...change.payload.data } });
        return;
      }
      case 'WIDGET_DELETE':
        this.widgets.delete(change.payload.widgetId);
        return;
      case 'LAYOUT_UPDATE':
        this.setLayout({ version: version ?? this.layout.version + 1, layout: change.payload.layout });
        return;
      case 'LAYOUT_RESTORE':
        // What an earlier layout looked like only the server knows for sure.
        return;
    }
  }

  /** Puts a widget as it is after a conflict. */
  put(widgetId: string, version: number, data: Data | null): void {
    if (data === null) this.widgets.delete(widgetId);
    else this.widgets.set(widgetId, { version, data });
  }

  /** The version a change of this target starts from; `undefined` if the server does not know the target. */
  versionOf(change: Change): number | undefined {
    if (change.type === 'WIDGET_UPDATE' || change.type === 'WIDGET_DELETE') return this.widgets.get(change.payload.widgetId)?.version;
    return this.layout.version;
  }

  /** Whether nothing would change by it: then a change that may have been applied needs no second try. */
  isSatisfied(change: Change): boolean {
    switch (change.type) {
      case 'WIDGET_UPDATE': {
        const known = this.widgets.get(change.payload.widgetId);
        return known !== undefined && Object.entries(change.payload.data).every(([key, value]) => same(known.data[key], value));
      }
      case 'WIDGET_DELETE':
        return !this.widgets.has(change.payload.widgetId);
      case 'LAYOUT_UPDATE':
        return same(this.layout.layout, change.payload.layout);
      case 'LAYOUT_RESTORE':
        return this.layouts.some((earlier) => earlier.version === change.payload.version && same(earlier.layout, this.layout.layout));
    }
  }

  /** The dashboard with these changes on top. */
  with(operations: Iterable<Operation>): { widgets: Map<string, Versioned>; layout: Json; touched: Set<string> } {
    const view = new Board();
    view.widgets = new Map(this.widgets);
    view.layout = this.layout;
    const touched = new Set<string>();
    for (const operation of operations) {
      const version = view.versionOf(operation) ?? 0;
      if (operation.type === 'WIDGET_UPDATE' && operation.before && !view.widgets.has(operation.payload.widgetId)) view.put(operation.payload.widgetId, 0, operation.before);
      view.apply(operation, version);
      touched.add(targetOf(operation));
    }
    return { widgets: view.widgets, layout: view.layout.layout, touched };
  }

  private setLayout(layout: Layout): void {
    this.layout = layout;
    if (layout.version < 1 || this.layouts[0]?.version === layout.version) return;
    this.layouts = [layout, ...this.layouts.filter(({ version }) => version < layout.version)].slice(0, 21);
  }
}
