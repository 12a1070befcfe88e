// The list of events: those that came, and the past of a channel. Owns which of the two is shown, and the pages of the past.

import { useEffect, useState } from 'preact/hooks';

import type { BusEvent } from './event-client.js';
import type { EventHttp } from './event-http.js';
import { Choice, Flag, Time, count } from './page.js';

/** Shown at once, of those in memory. */
const ROWS_MAX = 200;
const PAGE_EVENTS = 50;

interface EventListProps {
  /** Newest first. */
  events: BusEvent[];
  http: EventHttp;
  channels: string[];
  onClear: () => void;
}

export function EventList({ events, http, channels, onClear }: EventListProps) {
  const [shown, show] = useState<'live' | 'history'>('live');
  return (
    <section class="card stream events" aria-label="Events">
      <div class="heading">
        <Choice name="list" label="Which events" value={shown} options={[{ value: 'live', label: 'Live' }, { value: 'history', label: 'History' }]} onChoose={show} />
        {shown === 'live' && <span class="muted" id="event-count" data-count={events.length}>{count(events.length, 'event')}</span>}
        {shown === 'live' && <button class="quiet" type="button" id="clear" disabled={events.length === 0} onClick={onClear}>Clear</button>}
      </div>
      {shown === 'live' ? (
        events.length ? <Rows id="events" events={events.slice(0, ROWS_MAX)} /> : <div class="quietly"><p>Nothing yet.</p><p>Events of the channels you are subscribed to appear here.</p></div>
      ) : (
        <Past http={http} channels={channels} />
      )}
    </section>
  );
}

function Past({ http, channels }: { http: EventHttp; channels: string[] }) {
  const [chosen, choose] = useState<string | null>(null);
  const [events, set] = useState<BusEvent[] | null>(null);
  const [more, setMore] = useState(false);
  const [wrong, setWrong] = useState<string | null>(null);
  const channel = chosen ?? channels.find((name) => name.startsWith('tenant:')) ?? channels[0];
  const load = async (before?: string): Promise<void> => {
    if (channel === undefined) return;
    try {
      const page = await http.history(channel, PAGE_EVENTS, before);
      const older = [...page.events].reverse();
      set((known) => (before === undefined ? older : [...(known ?? []), ...older]));
      setMore(page.hasMore);
      setWrong(null);
    } catch (error) {
      setWrong((error as Error).message);
    }
  };
  useEffect(() => void load(), [channel]);
  const last = events?.at(-1);
  return (
    <>
      <form class="row" onSubmit={(event) => { event.preventDefault(); void load(); }}>
        <label class="hush" for="history-channel">Channel</label>
        <select class="field small grow" id="history-channel" value={channel} onChange={(event) => choose(event.currentTarget.value)}>
          {channels.map((name) => <option key={name} value={name}>{name}</option>)}
        </select>
        <button class="plain small" id="history-load">Read again</button>
      </form>
      {wrong && <p class="badge hot">{wrong}</p>}
      {events && (events.length ? <Rows id="history" events={events} /> : <p class="muted">Nothing is kept of this channel.</p>)}
      {more && last && <button class="quiet" type="button" id="history-older" onClick={() => void load(last.id)}>Older events</button>}
    </>
  );
}

function Rows({ id, events }: { id: string; events: BusEvent[] }) {
  return (
    <ol id={id} tabIndex={0}>
      {events.map((event) => <Row key={event.id} event={event} />)}
    </ol>
  );
}

function Row({ event }: { event: BusEvent }) {
  const { eventType, source, priority, userId, timestamp, data } = event;
  const line = JSON.stringify(data ?? null);
  return (
    <li class={`event p-${priority}`} data-event-id={event.id} data-event-type={eventType} data-source={source} data-priority={priority}>
      <p>
        <b>{eventType}</b>
        <Time at_ms={Date.parse(timestamp)} />
      </p>
      <p class="facts">
        {priority !== 'normal' && <span class={`badge ${priority === 'critical' ? 'hot' : priority === 'high' ? 'warn' : ''}`}>{priority}</span>}
        <span>{source}</span>
        {userId && source !== 'system' && <span class="by"><Flag name={userId} size={16} />{userId}</span>}
      </p>
      {line !== 'null' && line !== '{}' && (line.length > 90 ? <details><summary class="json">{line.slice(0, 80)}…</summary><pre>{JSON.stringify(data, null, 2)}</pre></details> : <p class="json">{line}</p>)}
    </li>
  );
}
