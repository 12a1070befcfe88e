// The panels of the event console: filter, subscriptions, sending, status. Each owns what is being typed in it, and nothing of the bus.

import { useState } from 'preact/hooks';

import { PRIORITIES, type EventClient, type Filters as FilterSet, type Priority } from './event-client.js';
import type { BusStatus, Catalogue } from './event-http.js';
import { Choice, Icon, Time, count } from './page.js';

const REPLAYS = [0, 10, 50, 100, 500];
/** Offered in a group of the filter. */
const NAMES_MAX = 40;

export function Filters({ filters, known, onChange }: { filters: FilterSet; known: Catalogue; onChange: (filters: FilterSet) => void }) {
  const active = Object.values(filters).reduce((sum, list) => sum + (list?.length ?? 0), 0);
  return (
    <details class="card panel" id="filters" open>
      <summary class="label"><span>Filter</span>{active > 0 && <span class="badge good" id="filter-count">{active}</span>}</summary>
      <NameFilter id="event-types" label="Event types" names={known.event_types} chosen={filters.eventTypes ?? []} onChange={(eventTypes) => onChange({ ...filters, eventTypes })} />
      <NameFilter id="sources" label="Sources" names={known.sources} chosen={filters.sources ?? []} onChange={(sources) => onChange({ ...filters, sources })} />
      <fieldset class="names" data-filter="priority">
        <legend>Priority</legend>
        {PRIORITIES.map((priority) => <Chip key={priority} name={priority} chosen={filters.priority?.includes(priority) ?? false} onChange={(on) => onChange({ ...filters, priority: toggled(filters.priority ?? [], priority, on) })} />)}
      </fieldset>
      <p class="row hint">
        <span class="grow">{active ? 'Only what is chosen, in each group.' : 'Nothing chosen: all events pass.'}</span>
        <button class="quiet" type="button" id="filter-clear" disabled={active === 0} onClick={() => onChange({})}>Clear</button>
      </p>
    </details>
  );
}

const toggled = <T,>(list: readonly T[], item: T, on: boolean): T[] => (on ? [...list, item] : list.filter((other) => other !== item));

function Chip({ name, chosen, onChange }: { name: string; chosen: boolean; onChange: (on: boolean) => void }) {
  return (
    <label class="chip">
      <input type="checkbox" value={name} checked={chosen} onChange={(event) => onChange(event.currentTarget.checked)} />
      {name}
    </label>
  );
}

/** Names to choose from, and a field for one that is not among them yet. */
function NameFilter({ id, label, names, chosen, onChange }: { id: string; label: string; names: string[]; chosen: string[]; onChange: (names: string[]) => void }) {
  const [text, type] = useState('');
  // What is chosen can always be seen.
  const all = [...new Set([...names.slice(0, NAMES_MAX), ...chosen])];
  const add = (): void => {
    const name = text.trim();
    if (name && !chosen.includes(name)) onChange([...chosen, name]);
    type('');
  };
  return (
    <fieldset class="names" data-filter={id}>
      <legend>{label}</legend>
      {all.map((name) => <Chip key={name} name={name} chosen={chosen.includes(name)} onChange={(on) => onChange(toggled(chosen, name, on))} />)}
      <form class="another" onSubmit={(event) => { event.preventDefault(); add(); }}>
        <input class="chip" id={`${id}-more`} aria-label={`Another of: ${label}`} placeholder="Another…" value={text} maxLength={128} autocapitalize="none" autocomplete="off" spellcheck={false} enterkeyhint="done" onInput={(event) => type(event.currentTarget.value)} onBlur={add} />
      </form>
    </fieldset>
  );
}

export function Subscriptions({ client, known }: { client: EventClient; known: Catalogue }) {
  const [channel, setChannel] = useState('');
  const [types, setTypes] = useState('');
  const [replay, setReplay] = useState(10);
  const list = [...client.subscriptions.values()];
  const subscribe = (): void => {
    const eventTypes = types.split(/[\s,]+/).filter(Boolean);
    if (channel.trim() && client.subscribe(channel.trim(), eventTypes, replay)) {
      setChannel('');
      setTypes('');
    }
  };
  return (
    <details class="card panel" id="subscriptions" open>
      <summary class="label"><span>Subscriptions</span><span class="badge">{list.length}</span></summary>
      <ul class="channels">
        {list.map((subscription) => (
          <li key={subscription.channel} data-channel={subscription.channel}>
            <span class="grow"><b>{subscription.channel}</b>{subscription.eventTypes.length > 0 && <small>{subscription.eventTypes.join(', ')}</small>}</span>
            <button class="icon" type="button" data-action="unsubscribe" aria-label={`Unsubscribe from ${subscription.channel}`} onClick={() => client.unsubscribe(subscription.channel)}><Icon name="x" size={16} /></button>
          </li>
        ))}
        {list.length === 0 && <li class="muted">None</li>}
      </ul>
      <form class="stack" id="subscribe-form" onSubmit={(event) => { event.preventDefault(); subscribe(); }}>
        <label class="hush" for="subscribe-channel">Channel</label>
        <input class="field small" id="subscribe-channel" list="known-channels" placeholder="Channel, such as ideas" value={channel} maxLength={128} autocapitalize="none" autocomplete="off" spellcheck={false} onInput={(event) => setChannel(event.currentTarget.value)} />
        <datalist id="known-channels">{['ideas', ...known.channels].map((name) => <option key={name} value={name} />)}</datalist>
        <label class="hush" for="subscribe-types">Event types</label>
        <input class="field small" id="subscribe-types" placeholder="Event types; all if empty" value={types} maxLength={400} autocapitalize="none" autocomplete="off" spellcheck={false} onInput={(event) => setTypes(event.currentTarget.value)} />
        <div class="row">
          <label class="hush" for="subscribe-replay">Past events</label>
          <select class="field small grow" id="subscribe-replay" value={replay} onChange={(event) => setReplay(Number(event.currentTarget.value))}>
            {REPLAYS.map((number) => <option key={number} value={number}>{number ? `with ${number} past` : 'only new'}</option>)}
          </select>
          <button class="plain small" id="subscribe" disabled={!client.isConnected || !channel.trim()}>Subscribe</button>
        </div>
      </form>
    </details>
  );
}

export function Sender({ client, known }: { client: EventClient; known: Catalogue }) {
  const [type, setType] = useState('custom_event');
  const [channel, setChannel] = useState('');
  const [priority, setPriority] = useState<Priority>('normal');
  const [data, setData] = useState('{"note": "Hello from the console"}');
  const [wrong, setWrong] = useState<string | null>(null);
  const send = (): void => {
    let value: unknown;
    try {
      value = data.trim() ? JSON.parse(data) : null;
    } catch (error) {
      return setWrong(`The data is not JSON: ${(error as Error).message}`);
    }
    setWrong(client.sendMessage({ type: type.trim(), data: value, priority, ...(channel ? { channel } : {}) }) ? null : 'Not connected, so nothing was sent.');
  };
  const channels = [...new Set([...client.subscriptions.keys(), ...known.channels])];
  return (
    <form class="card sender" id="send-form" onSubmit={(event) => { event.preventDefault(); send(); }}>
      <h2 class="label">Send an event</h2>
      <div class="row wrap">
        <label class="grow"><span class="hush">Event type</span><input class="field" id="send-type" list="known-types" value={type} maxLength={128} autocapitalize="none" autocomplete="off" spellcheck={false} onInput={(event) => setType(event.currentTarget.value)} /></label>
        <datalist id="known-types">{known.event_types.map((name) => <option key={name} value={name} />)}</datalist>
        <label class="grow"><span class="hush">Channel</span>
          <select class="field" id="send-channel" value={channel} onChange={(event) => setChannel(event.currentTarget.value)}>
            <option value="">To the whole tenant</option>
            {channels.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </label>
      </div>
      <label class="hush" for="send-data">Data, as JSON</label>
      <textarea class="field" id="send-data" rows={2} value={data} spellcheck={false} autocapitalize="none" onInput={(event) => setData(event.currentTarget.value)} />
      <div class="row wrap">
        <Choice name="send-priority" label="Priority" value={priority} options={PRIORITIES.map((value) => ({ value, label: value }))} onChoose={setPriority} />
        <button class="solid" id="send" disabled={!client.isConnected || !type.trim()}>Send</button>
      </div>
      {wrong && <p class="badge hot" id="send-error" role="alert">{wrong}</p>}
    </form>
  );
}

const number = new Intl.NumberFormat();

export function StatusPanel({ status, failure }: { status: BusStatus | null; failure: string | null }) {
  const { metrics } = status ?? {};
  const lines: [string, string, string][] = metrics
    ? [
        ['active', 'Connected now', number.format(metrics.active_connections)],
        ['total', 'Connections ever', number.format(metrics.total_connections)],
        ['sent', 'Events sent', number.format(metrics.events_sent)],
        ...(metrics.events_received === undefined ? [] : [['received', 'Events received', number.format(metrics.events_received)] as [string, string, string]]),
        ['history', 'Events kept', number.format(metrics.event_history_size)],
        ...(metrics.uptime_ms === undefined ? [] : [['uptime', 'Up for', duration(metrics.uptime_ms)] as [string, string, string]]),
      ]
    : [];
  return (
    <section class="card" id="status" aria-label="Status" data-health={status?.health}>
      <h2 class="label"><span>Status</span>{status && <span class={`badge ${status.health === 'healthy' && !failure ? 'good' : 'warn'}`} id="health">{failure ? 'no answer' : status.health}</span>}</h2>
      {failure && <p class="muted" id="status-error">{failure}</p>}
      {!status && !failure && <p class="muted">Asking…</p>}
      <dl class="status">
        {lines.map(([id, label, value]) => (
          <div key={id}><dt>{label}</dt><dd id={`status-${id}`}>{value}</dd></div>
        ))}
        {metrics?.last_activity && <div><dt>Last activity</dt><dd><Time at_ms={Date.parse(metrics.last_activity)} /></dd></div>}
      </dl>
      {metrics?.channels && metrics.channels.length > 0 && (
        <ul class="channels">
          {metrics.channels.map(({ channel, subscribers, history }) => (
            <li key={channel} data-channel={channel}><span class="grow"><b>{channel}</b><small>{count(subscribers, 'subscriber')}, {number.format(history)} kept</small></span></li>
          ))}
        </ul>
      )}
    </section>
  );
}

function duration(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return `${Math.floor(ms / 1000)} s`;
  if (minutes < 120) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} days`;
}
