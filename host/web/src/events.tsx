// The event console: who one is on the bus, and the panels around the list of events. Owns the events that came; the connection is the
// client's.

import { useEffect, useMemo, useState } from 'preact/hooks';

import { EventClient, type BusEvent } from './event-client.js';
import { EventHttp, type BusStatus, type Catalogue } from './event-http.js';
import { EventList } from './event-list.js';
import { Filters, Sender, StatusPanel, Subscriptions } from './event-panels.js';
import { NoticeList, Notices, State, count, isName, secondsTo, socketUrl, start, useChanges, useHash, useTick } from './page.js';
import { demoTokens } from './token.js';

/** Kept in memory. */
const EVENTS_MAX = 500;
const POLL_MS = 5_000;
const ROLES = ['member', 'admin'] as const;

const notices = new Notices();

/** Who one is: `#tenant/user/role`. */
interface Identity {
  tenant: string;
  user: string;
  role: string;
}

function identityOf(hash: string): Identity {
  const [tenant = '', user = '', role = ''] = hash.split('/');
  return isName(tenant) && isName(user) ? { tenant, user, role: role === 'admin' ? 'admin' : 'member' } : { tenant: 'acme', user: 'ann', role: 'admin' };
}

function Page() {
  const hash = useHash();
  const identity = useMemo(() => identityOf(hash), [hash]);
  return (
    <>
      <div class="title">
        <div>
          <h1>Event console</h1>
          <p class="lede">Everything that happens in a tenant, through a filter of yours; and what you send yourself.</p>
        </div>
        <Who {...identity} />
      </div>
      <Console key={`${identity.tenant}/${identity.user}/${identity.role}`} {...identity} />
      <NoticeList notices={notices} />
    </>
  );
}

function Who(identity: Identity) {
  const [tenant, setTenant] = useState(identity.tenant);
  const [user, setUser] = useState(identity.user);
  const [role, setRole] = useState(identity.role);
  const good = isName(tenant) && isName(user);
  const fresh = tenant === identity.tenant && user === identity.user && role === identity.role;
  return (
    <form class="who" id="identity" onSubmit={(event) => { event.preventDefault(); if (good) location.hash = `${tenant}/${user}/${role}`; }}>
      <label><span class="label">Tenant</span><input class="field" id="tenant" value={tenant} maxLength={64} autocapitalize="none" autocomplete="off" spellcheck={false} aria-invalid={!isName(tenant)} onInput={(event) => setTenant(event.currentTarget.value.trim())} /></label>
      <label><span class="label">User</span><input class="field" id="user" value={user} maxLength={64} autocapitalize="none" autocomplete="off" spellcheck={false} aria-invalid={!isName(user)} onInput={(event) => setUser(event.currentTarget.value.trim())} /></label>
      <label><span class="label">Role</span><select class="field" id="role" value={role} onChange={(event) => setRole(event.currentTarget.value)}>{ROLES.map((name) => <option key={name} value={name}>{name}</option>)}</select></label>
      <button class="solid" id="become" disabled={!good || fresh}>Connect as</button>
    </form>
  );
}

function Console({ tenant, user, role }: Identity) {
  const [events, setEvents] = useState<BusEvent[]>([]);
  const { client, http } = useMemo(() => {
    const token = demoTokens(user, { tenantId: tenant, userId: user, role });
    return {
      http: new EventHttp('/api/websocket', tenant, user, token),
      client: new EventClient({
        url: socketUrl('/ws'),
        tenantId: tenant,
        userId: user,
        token,
        enabled: false,
        onMessage: (event) => {
          setEvents((known) => [event, ...known].slice(0, EVENTS_MAX));
          if (event.source === 'system' && event.eventType === 'error') notices.add(String(event.data.message ?? event.data.code));
        },
      }),
    };
  }, []);
  useChanges((changed) => client.listen(changed), client);
  useEffect(() => {
    client.connect();
    return () => client.disconnect();
  }, []);
  const { status, catalogue, failure } = usePolled(http, client.connectionStatus);
  const known = useMemo(() => merge(catalogue, events), [catalogue, events]);
  return (
    <>
      <Connection client={client} />
      <div class="console">
        <div class="side">
          <Filters filters={client.filters} known={known} onChange={(filters) => client.updateFilters(filters)} />
          <Subscriptions client={client} known={known} />
        </div>
        <div class="middle">
          <Sender client={client} known={known} />
          <EventList events={events} http={http} channels={known.channels} onClear={() => setEvents([])} />
        </div>
        <div class="side">
          <StatusPanel status={status} failure={failure} />
        </div>
      </div>
    </>
  );
}

const WORDS = { connecting: 'Connecting…', connected: 'Connected', disconnected: 'Disconnected', error: 'Closed' };

function Connection({ client }: { client: EventClient }) {
  useTick(1000);
  const { connectionStatus, reconnectAttempts, error, retry_ms } = client;
  const state = connectionStatus === 'connecting' && reconnectAttempts ? 'reconnecting' : connectionStatus === 'disconnected' ? 'offline' : connectionStatus;
  return (
    <div class="bar">
      <State id="state" state={state} title={error}>{state === 'reconnecting' ? 'Reconnecting…' : WORDS[connectionStatus]}</State>
      {reconnectAttempts > 0 && <p class="muted" id="attempts">{count(reconnectAttempts, 'attempt')}{retry_ms !== null && `, the next in ${secondsTo(retry_ms)} s`}</p>}
      {connectionStatus === 'error' && <p class="badge hot" id="stopped">{error}</p>}
      {connectionStatus === 'disconnected' || connectionStatus === 'error'
        ? <button class="quiet" type="button" id="connect" onClick={() => client.connect()}>Connect</button>
        : <button class="quiet" type="button" id="disconnect" onClick={() => client.disconnect()}>Disconnect</button>}
    </div>
  );
}

/** Status and catalogue, asked for every few seconds while the page can be seen, and when the connection changes. */
function usePolled(http: EventHttp, connection: string): { status: BusStatus | null; catalogue: Catalogue | null; failure: string | null } {
  const [polled, set] = useState<{ status: BusStatus | null; catalogue: Catalogue | null; failure: string | null }>({ status: null, catalogue: null, failure: null });
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>;
    let over = false;
    const poll = async (): Promise<void> => {
      if (!document.hidden) {
        try {
          const [status, catalogue] = await Promise.all([http.status(), http.catalogue()]);
          set({ status, catalogue, failure: null });
        } catch (error) {
          set((last) => ({ ...last, failure: (error as Error).message }));
        }
      }
      if (!over) timer = setTimeout(() => void poll(), POLL_MS);
    };
    void poll();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [http, connection]);
  return polled;
}

/** What the server knows by name, and what came since it was asked. */
function merge(catalogue: Catalogue | null, events: BusEvent[]): Catalogue {
  const others = events.filter(({ source }) => source !== 'system');
  const sorted = (names: string[]): string[] => [...new Set(names)].sort();
  return {
    channels: catalogue?.channels ?? [],
    event_types: sorted(['custom_event', ...(catalogue?.event_types ?? []), ...others.map(({ eventType }) => eventType)]),
    sources: sorted([...(catalogue?.sources ?? []), ...others.map(({ source }) => source)]),
  };
}

start(<Page />);
