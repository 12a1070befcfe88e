// One client's view of the dashboard: how it is connected, what waits, and the board. Owns its layout's form; state is the client's.

import { useEffect, useState } from 'preact/hooks';

import { Choice, Flag, Icon, State, count, secondsTo, useChanges, useTick, type Notices } from './page.js';
import { WidgetCard } from './widget-card.js';
import { isObject, randomId, type Connection, type Json, type Mode, type Widget, type WidgetClient, type WidgetState } from './widget-client.js';
import { ConflictDialog } from './widget-conflict.js';

/** How widgets lie: their order, and which take the whole width. */
interface Arrangement {
  order: string[];
  wide: string[];
}

const MODES = [
  { value: 'live', label: 'Live', title: 'Over the socket' },
  { value: 'http', label: 'No socket', title: 'Changes are posted every 30 seconds' },
  { value: 'offline', label: 'Offline', title: 'Changes wait' },
] as const satisfies readonly { value: Mode; label: string; title: string }[];

const WORDS: Record<Connection, string> = { connecting: 'Connecting…', connected: 'Live', reconnecting: 'Reconnecting…', http: 'By HTTP', offline: 'Offline', stopped: 'Closed' };

const EXAMPLES = [
  { title: 'Visitors today', value: '1284' },
  { title: 'Open tickets', value: '17' },
  { title: 'Water temperature', value: '18.5 °C' },
  { title: 'Next departure', value: '14:20' },
];

/** The layout as this page understands it; widgets it does not name come last. */
function arrangement(layout: Json, widgets: Widget[]): Arrangement {
  const list = (value: unknown): string[] => (Array.isArray(value) ? value.filter((id) => typeof id === 'string') : []);
  const named = isObject(layout) ? layout : {};
  const known = new Set(widgets.map(({ id }) => id));
  const order = [...new Set(list(named.order))].filter((id) => known.has(id));
  const rest = widgets.map(({ id }) => id).filter((id) => !order.includes(id));
  return { order: [...order, ...rest], wide: list(named.wide).filter((id) => known.has(id)) };
}

interface PaneProps {
  pane: string;
  user: string;
  client: WidgetClient;
  notices: Notices;
}

export function Pane({ pane, user, client, notices }: PaneProps) {
  useChanges((changed) => client.subscribe(changed), client);
  useEffect(() => {
    client.start();
    return () => client.stop();
  }, [client]);
  const { state } = client;
  const [conflict] = state.conflicts;
  const { order, wide } = arrangement(state.layout, state.widgets);
  const widgets = order.flatMap((id) => state.widgets.find((widget) => widget.id === id) ?? []);

  /** What the queue refuses, a person hears of. */
  const attempt = (change: () => void): void => {
    try {
      change();
    } catch (error) {
      notices.add(`${user}: ${(error as Error).message}`);
    }
  };
  const arrange = (next: Partial<Arrangement>) => attempt(() => client.updateLayout({ order, wide, ...next }));
  const move = (id: string, before: string | undefined) => {
    const others = order.filter((other) => other !== id);
    const at = before === undefined ? others.length : others.indexOf(before);
    arrange({ order: [...others.slice(0, at), id, ...others.slice(at)] });
  };
  const add = (data: { title: string; value: string }) => attempt(() => client.updateWidget(randomId('w'), data));

  return (
    <section class="pane card" data-pane={pane} aria-label={`${user}’s view`}>
      <div class="board" inert={conflict !== undefined}>
        <header>
          <Flag name={user} size={32} />
          <div class="grow">
            <h2>{user}</h2>
            <State id={`${pane}-state`} state={state.connection} title={state.error}>{WORDS[state.connection]}</State>
          </div>
          <Choice name={`${pane}-mode`} label="Connection" value={state.mode} options={MODES} onChoose={(mode) => client.setMode(mode)} />
        </header>
        <Sync pane={pane} state={state} client={client} />
        {state.loaded && widgets.length === 0 ? (
          <div class="quietly empty">
            <p>Nothing on this board yet.</p>
            <p><button class="plain small" type="button" data-action="example" onClick={() => EXAMPLES.forEach(add)}>Put four widgets on it</button></p>
          </div>
        ) : (
          <ol class="widgets" data-loaded={state.loaded}>
            {widgets.map((widget, at) => (
              <WidgetCard key={widget.id} widget={widget} wide={wide.includes(widget.id)} first={at === 0} last={at === widgets.length - 1}
                onChange={(data) => attempt(() => client.updateWidget(widget.id, data))}
                onDelete={() => attempt(() => client.deleteWidget(widget.id))}
                onMove={(by) => move(widget.id, by < 0 ? order[at - 1] : order[at + 2])}
                onDrop={(id) => id !== widget.id && order.includes(id) && move(id, order.indexOf(id) < at ? order[at + 1] : widget.id)}
                onWide={() => arrange({ wide: wide.includes(widget.id) ? wide.filter((id) => id !== widget.id) : [...wide, widget.id] })} />
            ))}
          </ol>
        )}
        <footer>
          <button class="plain small" type="button" data-action="add" disabled={!state.loaded && state.mode === 'live'} onClick={() => add({ title: 'New widget', value: '0' })}><Icon name="plus" size={16} />Add a widget</button>
          <Restore pane={pane} state={state} onRestore={(version) => attempt(() => client.restoreLayout(version))} />
        </footer>
      </div>
      {conflict && <ConflictDialog key={conflict.conflictId} conflict={conflict} more={state.conflicts.length - 1} onDecide={(resolution, data) => client.resolveConflict(conflict.conflictId, resolution, data)} />}
    </section>
  );
}

/** The sync indicator, the badge of pending operations, and what one can do about either. */
function Sync({ pane, state, client }: { pane: string; state: WidgetState; client: WidgetClient }) {
  useTick(1000);
  const { sync, pendingOperations, nextSync_ms, connection } = state;
  const words = { synced: 'In sync', syncing: 'Syncing…', waiting: 'Waiting', conflict: 'Conflict' }[sync];
  const tone = { synced: 'good', syncing: 'warn', waiting: 'warn', conflict: 'hot' }[sync];
  return (
    <div class="sync">
      <p class={`badge ${state.loaded ? tone : ''}`} id={`${pane}-sync`} data-sync={sync} role="status">{state.loaded ? words : 'Not read yet'}</p>
      <p class="badge" id={`${pane}-pending`} data-pending={pendingOperations} hidden={pendingOperations === 0}>{count(pendingOperations, 'change')} pending</p>
      {nextSync_ms !== null && connection !== 'connected' && (
        <p class="muted">{pendingOperations ? 'Posts' : 'Looks again'} in {secondsTo(nextSync_ms)} s <button class="quiet" type="button" data-action="sync" onClick={() => void client.syncNow()}>{pendingOperations ? 'Post now' : 'Now'}</button></p>
      )}
      {connection === 'stopped' && <p class="muted">{state.error} <button class="quiet" type="button" data-action="retry" onClick={() => client.retry()}>Connect again</button></p>}
    </div>
  );
}

/** Layouts of the past; the server keeps twenty. */
function Restore({ pane, state, onRestore }: { pane: string; state: WidgetState; onRestore: (version: number) => void }) {
  const current = state.layoutVersion;
  const versions = Array.from({ length: Math.max(0, Math.min(19, current - 1)) }, (_, back) => current - 1 - back);
  const [chosen, choose] = useState<number | null>(null);
  const version = chosen !== null && versions.includes(chosen) ? chosen : versions[0];
  return (
    <form class="row restore" data-layout-version={current} onSubmit={(event) => { event.preventDefault(); if (version !== undefined) onRestore(version); choose(null); }}>
      <label class="hush" for={`${pane}-layout`}>Earlier layout</label>
      <select class="field small" id={`${pane}-layout`} value={version} disabled={versions.length === 0} onChange={(event) => choose(Number(event.currentTarget.value))}>
        {versions.length === 0 && <option>No earlier layout</option>}
        {versions.map((number) => <option key={number} value={number}>Layout {number}{number === current - 1 ? ', the last' : ''}</option>)}
      </select>
      <button class="plain small" data-action="restore" disabled={versions.length === 0}>Restore</button>
    </form>
  );
}
