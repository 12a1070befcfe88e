// The owner dashboard: figures as cards with charts, and bookings as they change. Owns the choice of the owner; the figures are
// `metrics-client.ts`'s.

import type { ComponentChildren } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';

import { Chart, type Line } from './metrics-chart.js';
import { MetricsClient, type Metrics, type OwnerEvent, type Point } from './metrics-client.js';
import { State, Time, count, isName, socketUrl, start, useHash, useTick } from './page.js';
import { demoTokens } from './token.js';

const OWNERS = ['ann', 'bob', 'owner-1', 'owner-2', 'owner-3'];
/** Figures come every 5 s; later than this they are called late. */
const LATE_MS = 12_000;

const money = new Intl.NumberFormat([], { style: 'currency', currency: 'EUR', maximumFractionDigits: 0 });
const short = new Intl.NumberFormat([], { notation: 'compact', maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat([], { maximumFractionDigits: 1 });

function Page() {
  const hash = useHash();
  const owner = isName(hash) ? hash : 'ann';
  const [, draw] = useState(0);
  const client = useMemo(
    () => new MetricsClient(socketUrl('/api/ws'), demoTokens(owner, { ownerId: owner }), () => draw((times) => times + 1)),
    [owner],
  );
  useEffect(() => {
    client.start();
    return () => client.stop();
  }, [client]);
  const [hovered, hover] = useState<number | null>(null);
  const point = (hovered === null ? null : client.points[hovered]) ?? client.latest;
  return (
    <>
      <div class="title">
        <div>
          <h1>Owner metrics</h1>
          <p class="lede">Figures of an aircraft hangar owner, every five seconds; bookings the moment they change.</p>
        </div>
        <Owner owner={owner} />
      </div>
      <Bar client={client} point={hovered === null ? null : point} />
      <div class="columns">
        <div class="cards" data-stale={client.stale}>
          <Cards points={client.points} metrics={point?.metrics ?? null} onHover={hover} />
        </div>
        <Events events={client.events} dropped={client.eventsDropped} owner={owner} />
      </div>
    </>
  );
}

function Owner({ owner }: { owner: string }) {
  const [text, type] = useState(owner);
  useEffect(() => type(owner), [owner]);
  const wrong = text !== '' && !isName(text);
  return (
    <form class="picker" id="owner-form" onSubmit={(event) => { event.preventDefault(); if (isName(text)) location.hash = text; }}>
      <label class="label" for="owner">Owner</label>
      <div class="row">
        <input class="field" id="owner" list="owners" value={text} maxLength={64} autocapitalize="none" autocomplete="off" spellcheck={false} aria-invalid={wrong} onInput={(event) => type(event.currentTarget.value)} />
        <button class="solid" id="owner-show" disabled={!isName(text)}>Show</button>
      </div>
      <datalist id="owners">{OWNERS.map((name) => <option key={name} value={name} />)}</datalist>
      <div class="picks">
        {OWNERS.slice(0, 3).map((name) => <a key={name} class="chip" href={`#${name}`} aria-current={name === owner ? 'true' : undefined}>{name}</a>)}
      </div>
    </form>
  );
}

const WORDS = { connecting: 'Connecting…', open: 'Live', waiting: 'Reconnecting…', closed: 'Off', exhausted: 'Off', stopped: 'Closed' };

function Bar({ client, point }: { client: MetricsClient; point: Point | null }) {
  useTick(1000);
  const { state, latest, stale, error, latency_ms } = client;
  const late = state === 'open' && latest !== null && Date.now() - latest.at_ms > LATE_MS;
  const badge = stale ? 'The database does not answer: these are the last known figures' : late ? 'No new figures for a while' : state === 'open' || !latest ? null : 'Not connected: these are the last figures';
  return (
    <div class="bar">
      <State id="state" state={state === 'open' ? 'connected' : state === 'waiting' ? 'reconnecting' : state === 'exhausted' ? 'offline' : state} title={error}>{WORDS[state]}{state === 'open' && latency_ms !== null ? ` · ${latency_ms} ms` : ''}</State>
      <p class="muted" id="updated">{point ? <>At <Time at_ms={point.at_ms} /></> : latest ? <>Figures of <Time at_ms={latest.at_ms} /></> : 'No figures yet'}</p>
      {badge && <p class="badge warn" id="stale">{badge}</p>}
      {state === 'stopped' && <p class="badge hot" id="stopped">{error} <button class="quiet" id="retry" type="button" onClick={() => client.start()}>Connect again</button></p>}
    </div>
  );
}

function Cards({ points, metrics, onHover }: { points: Point[]; metrics: Metrics | null; onHover: (index: number | null) => void }) {
  const { revenue, bookings, listings, occupancy } = metrics ?? {};
  const growth = revenue?.growth ?? 0;
  return (
    <>
      <Card id="revenue" label="Revenue today" value={revenue && money.format(revenue.daily)}
        facts={revenue && <><span>{money.format(revenue.monthly)} this month</span><span class={growth < 0 ? 'down' : 'up'} id="growth">{growth < 0 ? '▼' : '▲'} {percent.format(Math.abs(growth))} % on last month</span></>}
        points={points} lines={[{ label: 'Today', colour: '--sea' }]} values={[({ revenue }) => revenue.daily]} format={(value) => short.format(value)} onHover={onHover} />
      <Card id="bookings" label="Open bookings" value={bookings && String(bookings.total)}
        facts={bookings && <><span class="key line">{bookings.confirmed} confirmed</span><span class="key dash">{bookings.pending} pending</span></>}
        points={points} lines={[{ label: 'Confirmed', colour: '--sea' }, { label: 'Pending', colour: '--sun', dashed: true }]} values={[({ bookings }) => bookings.confirmed, ({ bookings }) => bookings.pending]} whole format={(value) => short.format(value)} onHover={onHover} />
      <Card id="listings" label="Active listings" value={listings && String(listings.active)}
        facts={listings && <><span>{listings.published} published</span><span>{listings.total} in all</span></>}
        points={points} lines={[{ label: 'Active', colour: '--sea' }]} values={[({ listings }) => listings.active]} whole format={(value) => short.format(value)} onHover={onHover} />
      <Card id="occupancy" label="Occupancy" value={occupancy && `${percent.format(occupancy.percentage)} %`}
        facts={occupancy && <span>{occupancy.booked} of {count(occupancy.available, 'place')} taken today</span>}
        points={points} lines={[{ label: 'Occupancy', colour: '--sun' }]} values={[({ occupancy }) => occupancy.percentage]} range={[0, 100]} format={(value) => `${value} %`} onHover={onHover} />
    </>
  );
}

interface CardProps {
  id: string;
  label: string;
  value: string | undefined;
  facts: ComponentChildren;
  points: Point[];
  lines: Line[];
  values: ((metrics: Metrics) => number)[];
  range?: [number, number];
  whole?: boolean;
  format: (value: number) => string;
  onHover: (index: number | null) => void;
}

function Card({ id, label, value, facts, points, lines, values, range, whole, format, onHover }: CardProps) {
  const host = useRef<HTMLDivElement>(null);
  const chart = useRef<Chart | null>(null);
  useEffect(() => {
    if (!host.current) return;
    chart.current = new Chart(host.current, { lines, range, whole, format, onHover });
    return () => chart.current?.destroy();
  }, []);
  const last = points.at(-1);
  useEffect(() => {
    chart.current?.set([points.map(({ at_ms }) => at_ms / 1000), ...values.map((of) => points.map(({ metrics }) => of(metrics)))]);
  }, [last, points]);
  return (
    <section class="card figure" id={`card-${id}`} aria-label={label}>
      <h2 class="label">{label}</h2>
      <p class="number" id={id} data-loaded={value !== undefined}>{value ?? '–'}</p>
      <p class="facts">{facts}</p>
      <div class="chart" ref={host} aria-hidden="true" />
    </section>
  );
}

const STATUS: Record<string, string> = { pending: 'warn', confirmed: 'good', completed: 'good', cancelled: 'hot' };

function Events({ events, dropped, owner }: { events: OwnerEvent[]; dropped: number; owner: string }) {
  return (
    <section class="card stream" aria-label="Events">
      <h2 class="label"><span>Events</span>{events.length > 0 && <span>{events.length}</span>}</h2>
      {dropped > 0 && <p class="badge warn" id="dropped">{count(dropped, 'event')} were not kept while nobody was connected</p>}
      {events.length === 0 && (
        <div class="quietly">
          <p>No booking has changed yet.</p>
          <p>Your server publishes one, with a key of <code>hotbay key create</code>:</p>
          <pre>{`curl -H "Authorization: Bearer $KEY" \\
  -d '{"type":"booking_updated",
       "data":{"bookingId":"b-7",
               "status":"confirmed"}}' \\
  ${location.origin}/v1/channels/owner:${owner}/publish`}</pre>
        </div>
      )}
      <ol id="events">
        {events.map((event) => {
          const { bookingId, status } = event.data;
          return (
            <li key={event.key} class="event" data-type={event.type}>
              <p><b>{event.type === 'booking_updated' ? `Booking ${String(bookingId)}` : event.type}</b><Time at_ms={event.at_ms} /></p>
              {event.type === 'booking_updated' ? <p><span class={`badge ${STATUS[String(status)] ?? ''}`}>{String(status)}</span></p> : <p class="json">{JSON.stringify(event.data)}</p>}
            </li>
          );
        })}
      </ol>
    </section>
  );
}

start(<Page />);
