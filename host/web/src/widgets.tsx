// The widget board: one dashboard, seen by two clients that know nothing of each other. Owns which dashboard and who looks at it.

import { useMemo } from 'preact/hooks';

import { Notices, NoticeList, isName, socketUrl, start, useHash } from './page.js';
import { demoTokens } from './token.js';
import { WEBSOCKET_CONFIG, WidgetClient } from './widget-client.js';
import { Pane } from './widget-pane.js';

const PEOPLE = [{ pane: 'a', user: 'ann' }, { pane: 'b', user: 'ben' }] as const;

const notices = new Notices();

function newClient(dashboardId: string, userId: string): WidgetClient {
  return new WidgetClient({
    userId,
    dashboardId,
    token: demoTokens(userId, { userId, dashboards: JSON.stringify([dashboardId]) }),
    socketUrl: socketUrl(WEBSOCKET_CONFIG.url),
    httpUrl: WEBSOCKET_CONFIG.url,
    onNotice: (text) => notices.add(`${userId}: ${text}`),
  });
}

function Page() {
  const hash = useHash();
  const dashboardId = isName(hash) ? hash : 'team';
  const panes = useMemo(() => PEOPLE.map(({ pane, user }) => ({ pane, user, client: newClient(dashboardId, user) })), [dashboardId]);
  return (
    <>
      <div class="title">
        <div>
          <h1>Widget board</h1>
          <p class="lede">Two people, one dashboard. Take one of them offline, change the same widget in both, and come back.</p>
        </div>
        <p class="muted">Dashboard <b id="dashboard">{dashboardId}</b></p>
      </div>
      <div class="panes">
        {panes.map(({ pane, user, client }) => <Pane key={`${dashboardId} ${pane}`} pane={pane} user={user} client={client} notices={notices} />)}
      </div>
      <NoticeList notices={notices} />
    </>
  );
}

start(<Page />);
