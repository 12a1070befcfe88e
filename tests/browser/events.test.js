// The event console in real browsers: two people of one tenant, one of them on a phone, and a stranger of another.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';

import { Broker } from './broker.js';
import { PHONE, has, launch, open, overflows } from './demo.js';

/** A page of the past, as the console reads them. */
const PAGE_EVENTS = 50;

describe('the event console', { timeout: 300_000 }, () => {
  let broker, browser, ann, ben, eve;

  before(async () => {
    broker = await Broker.start();
    browser = await launch();
    ann = await open(browser, broker, 'events#acme/ann/admin', { colorScheme: 'light' });
    ben = await open(browser, broker, 'events#acme/ben/member', { ...PHONE, colorScheme: 'dark' });
    eve = await open(browser, broker, 'events#umbra/eve/admin');
    for (const [visit, tenant] of [[ann, 'acme'], [ben, 'acme'], [eve, 'umbra']]) await subscribedTo(visit, `tenant:${tenant}`);
  });

  // What tests look for is what came since, through no filter.
  beforeEach(async () => {
    for (const visit of [ann, ben, eve]) {
      await showsLive(visit);
      if (await visit.page.locator('#filter-clear').isEnabled()) await clearFilter(visit);
      const clear = visit.page.locator('#clear');
      if (await clear.isEnabled()) await clear.click();
    }
  });

  after(async () => {
    await browser?.close();
    await broker?.remove();
    for (const visit of [ann, ben, eve]) assert.deepEqual(visit?.faults, [], 'faults of a page');
  });

  const connected = ({ page }) => has(page, '#state', 'data-state', 'connected');
  const subscribedTo = ({ page }, channel) => has(page, '#subscriptions li', 'data-channel', channel);
  const rows = ({ page }, type) => page.locator(type === undefined ? '#events li:not([data-source="system"])' : `#events li[data-event-type="${type}"]`);
  const sees = (visit, type) => rows(visit, type).first().waitFor();
  const types = (visit, list = 'events') => visit.page.locator(`#${list} li:not([data-source="system"])`).evaluateAll((all) => all.map((row) => row.dataset.eventType));

  async function send({ page }, type, { data = {}, channel = '', priority = 'normal' } = {}) {
    await page.locator('#send-type').fill(type);
    await page.locator('#send-data').fill(JSON.stringify(data));
    await page.locator('#send-channel').selectOption(channel);
    await page.locator(`input[name="send-priority"][value="${priority}"]`).check({ force: true });
    await page.locator('#send').click();
  }

  /** Posts an event as an application server does. */
  async function post(tenant, user, event) {
    const { token } = await (await fetch(`${broker.url}/demo/token?${new URLSearchParams({ user, key: 'default', tenantId: tenant, userId: user })}`)).json();
    const headers = { authorization: `Bearer ${token}`, 'x-tenant-id': tenant, 'x-user-id': user };
    const response = await fetch(`${broker.url}/api/websocket`, { method: 'POST', headers, body: JSON.stringify(event) });
    assert.equal(response.status, 200, await response.text());
  }

  async function subscribe({ page }, channel, replay) {
    await page.locator('#subscribe-channel').fill(channel);
    await page.locator('#subscribe-replay').selectOption(String(replay));
    await page.locator('#subscribe').click();
  }

  async function unsubscribe({ page }, channel) {
    const subscription = page.locator(`#subscriptions li[data-channel="${channel}"]`);
    await subscription.locator('[data-action="unsubscribe"]').click();
    await subscription.waitFor({ state: 'detached' });
  }

  /** Chooses a value of the filter, and waits until the server has it. */
  async function choose({ page }, group, value) {
    const confirmed = page.locator('#events li[data-event-type="filters_updated"]');
    const before = await confirmed.count();
    await page.locator(`[data-filter="${group}"] input[value="${value}"]`).check({ force: true });
    await confirmed.nth(before).waitFor({ state: 'attached' });
  }

  async function clearFilter({ page }) {
    const confirmed = page.locator('#events li[data-event-type="filters_updated"]');
    const before = await confirmed.count();
    await page.locator('#filter-clear').click();
    await confirmed.nth(before).waitFor({ state: 'attached' });
  }

  const showsLive = ({ page }) => page.locator('input[name="list"][value="live"]').check({ force: true });
  const showsHistory = ({ page }) => page.locator('input[name="list"][value="history"]').check({ force: true });

  it('shows an event to the tenant, and to nobody else', async () => {
    await send(ann, 'berth_taken', { data: { berth: 7 }, priority: 'high' });
    for (const visit of [ann, ben]) {
      await sees(visit, 'berth_taken');
      const row = rows(visit, 'berth_taken');
      assert.equal(await row.getAttribute('data-priority'), 'high');
      assert.match(await row.innerText(), /ann[^]*\{"berth":7\}/);
    }

    await send(ben, 'berth_left');
    for (const visit of [ann, ben]) await sees(visit, 'berth_left');
    await send(eve, 'own_event');
    await sees(eve, 'own_event');

    assert.deepEqual(await types(eve), ['own_event']);
    for (const visit of [ann, ben]) assert.deepEqual(await types(visit), ['berth_left', 'berth_taken'], 'once each, the sender too');
    await showsHistory(eve);
    await eve.page.locator('#history li[data-event-type="own_event"]').waitFor();
    assert.deepEqual(await types(eve, 'history'), ['own_event']);
    await showsLive(eve);
  });

  it('refuses the channel of another tenant, and says so', async () => {
    await subscribe(eve, 'tenant:acme', 10);

    await eve.page.locator('#notices .notice', { hasText: 'another tenant' }).waitFor();
    assert.equal(await eve.page.locator('#subscriptions li[data-channel="tenant:acme"]').count(), 0);
    await eve.page.locator('#notices').getByRole('button', { name: 'Dismiss' }).click();
    await eve.page.locator('#notices .notice').waitFor({ state: 'detached' });
  });

  it('lets through what a filter names, until it is cleared', async () => {
    const event = (name, more) => ({ event: name, payload: {}, source: 'harbour', ...more });
    for (const [group, value, passing, stopped] of [
      ['event-types', 'passing', event('passing'), event('stopped')],
      ['sources', 'tower', event('passing', { source: 'tower' }), event('stopped')],
      ['priority', 'critical', event('passing', { priority: 'critical' }), event('stopped')],
    ]) {
      // The page offers the names it has seen.
      await post('acme', 'ann', passing);
      await sees(ben, 'passing');
      await ben.page.locator('#clear').click();

      await choose(ben, group, value);
      await post('acme', 'ann', stopped);
      await post('acme', 'ann', passing);
      await sees(ben, 'passing');
      assert.deepEqual(await types(ben), ['passing'], `filter by ${group}`);
      assert.equal(await ben.page.locator('#filter-count').innerText(), '1');

      await clearFilter(ben);
      assert.equal(await ben.page.locator('[data-filter] input:checked').count(), 0);
      await post('acme', 'ann', stopped);
      await sees(ben, 'stopped');
      await ben.page.locator('#clear').click();
    }
  });

  it('refuses to send what is not JSON', async () => {
    await ann.page.locator('#send-type').fill('broken');
    await ann.page.locator('#send-data').fill('{"berth": ');
    await ann.page.locator('#send').click();

    await ann.page.locator('#send-error', { hasText: 'not JSON' }).waitFor();
    await send(ann, 'whole', { data: { berth: 1 } });
    await sees(ann, 'whole');
    assert.deepEqual(await types(ann), ['whole']);
    assert.equal(await ann.page.locator('#send-error').count(), 0);
  });

  it('replays the past of a channel to who subscribes, and then what is new', async () => {
    for (const n of [1, 2, 3]) await send(ann, `idea_${n}`, { channel: 'ideas:acme' });
    await send(ann, 'after_ideas');
    await sees(ann, 'after_ideas');
    assert.deepEqual(await types(ann), ['after_ideas'], 'ann is not subscribed to ideas');

    await subscribe(ben, 'ideas', 10);
    await subscribedTo(ben, 'ideas:acme');
    await sees(ben, 'idea_3');
    await subscribe(ann, 'ideas', 0);
    await subscribedTo(ann, 'ideas:acme');
    await send(ann, 'idea_4', { channel: 'ideas:acme' });

    for (const visit of [ann, ben]) await sees(visit, 'idea_4');
    assert.deepEqual(await types(ben), ['idea_4', 'idea_3', 'idea_2', 'idea_1', 'after_ideas']);
    assert.deepEqual(await types(ann), ['idea_4', 'after_ideas'], 'only new ones');

    for (const visit of [ann, ben]) await unsubscribe(visit, 'ideas:acme');
    await send(ann, 'idea_5', { channel: 'ideas:acme' });
    await send(ann, 'last');
    for (const visit of [ann, ben]) {
      await sees(visit, 'last');
      assert.equal(await rows(visit, 'idea_5').count(), 0);
    }
  });

  it('reads the history of a channel, page by page', async () => {
    const names = Array.from({ length: PAGE_EVENTS + 10 }, (_, n) => `entry_${n + 1}`);
    for (const event of names) await post('acme', 'ann', { channel: 'archive', event, payload: {} });
    await showsHistory(ann);
    const channel = ann.page.locator('#history-channel');
    await channel.locator('option', { hasText: 'archive:acme' }).waitFor({ state: 'attached' });
    await channel.selectOption('archive:acme');

    const newestFirst = [...names].reverse();
    await ann.page.locator(`#history li[data-event-type="${newestFirst[0]}"]`).waitFor();
    assert.deepEqual(await types(ann, 'history'), newestFirst.slice(0, PAGE_EVENTS));
    await ann.page.locator('#history-older').click();
    await ann.page.locator('#history li[data-event-type="entry_1"]').waitFor();
    assert.deepEqual(await types(ann, 'history'), newestFirst);
    assert.equal(await ann.page.locator('#history-older').count(), 0);

    await post('acme', 'ann', { channel: 'archive', event: 'entry_new', payload: {} });
    await ann.page.locator('#history-load').click();
    await ann.page.locator('#history li[data-event-type="entry_new"]').waitFor();
    await showsLive(ann);
  });

  it('filters by all groups at once, and by names that the page does not offer', async () => {
    // There are more event types by now than it offers.
    const offered = ben.page.locator('[data-filter="event-types"] input[type="checkbox"]');
    await offered.nth(39).waitFor({ state: 'attached' });
    assert.equal(await offered.count(), 40);
    const more = ben.page.locator('#event-types-more');
    await more.fill('unheard_of');
    await more.press('Enter');
    await ben.page.locator('[data-filter="event-types"] input[value="unheard_of"]:checked').waitFor({ state: 'attached' });
    await choose(ben, 'priority', 'high');
    await choose(ben, 'priority', 'low');
    assert.equal(await ben.page.locator('#filter-count').innerText(), '3');

    await send(ann, 'unheard_of', { priority: 'normal' });
    await send(ann, 'other', { priority: 'high' });
    await send(ann, 'unheard_of', { data: { n: 1 }, priority: 'low' });
    await send(ann, 'unheard_of', { data: { n: 2 }, priority: 'high' });

    await rows(ben, 'unheard_of').nth(1).waitFor();
    const shown = await rows(ben).evaluateAll((all) => all.map((row) => `${row.dataset.eventType} ${row.dataset.priority}`));
    assert.deepEqual(shown, ['unheard_of high', 'unheard_of low']);
    await clearFilter(ben);
  });

  it('counts who is connected and what was sent', async () => {
    const figure = ({ page }, id, value) => page.locator(`#status-${id}`, { hasText: new RegExp(`^${value}$`) }).waitFor();
    const pat = await open(browser, broker, 'events#pier/pat/member');
    await subscribedTo(pat, 'tenant:pier');
    await has(pat.page, '#status', 'data-health', 'healthy');
    await figure(pat, 'active', 1);
    const quin = await open(browser, broker, 'events#pier/quin/member');
    await subscribedTo(quin, 'tenant:pier');

    await send(pat, 'one');
    await send(quin, 'two');

    for (const visit of [pat, quin]) {
      await sees(visit, 'one');
      await sees(visit, 'two');
      await figure(visit, 'active', 2);
      await figure(visit, 'received', 2);
      await figure(visit, 'history', 2);
      // A welcome and both events to each.
      await figure(visit, 'sent', 6);
    }
    assert.match(await pat.page.locator('#status-uptime').innerText(), /^\d+ (s|min)$/);

    await quin.context.close();
    await figure(pat, 'active', 1);
    await figure(pat, 'total', 2);
    assert.deepEqual([...pat.faults, ...quin.faults], []);
    await pat.context.close();
  });

  it('shows markup as text', async () => {
    const markup = '<img src=x onerror="alert(1)">';
    const texts = [markup, '</p><script>alert(2)</script>', '<b>bold</b> &amp;'];
    for (const text of texts) await post('acme', 'ann', { event: text, payload: { text }, source: text });

    for (const visit of [ann, ben]) {
      for (const text of texts) {
        const row = rows(visit).filter({ has: visit.page.locator('b').getByText(text, { exact: true }) });
        await row.waitFor();
        assert.ok((await row.locator('.json').first().innerText()).includes(JSON.stringify(text)));
      }
      assert.equal(await visit.page.locator('#app img, #app script, .event b b, .event .json b').count(), 0);
      assert.ok(await visit.page.locator('[data-filter="sources"]').getByText(markup, { exact: true }).isVisible());
    }
    await subscribe(ann, markup, 0);
    await ann.page.locator('#subscriptions li b').getByText(`${markup}:acme`, { exact: true }).waitFor();
    assert.equal(await ann.page.locator('#app img, #app script').count(), 0);
    await ann.page.locator('#subscriptions').getByRole('button', { name: `Unsubscribe from ${markup}` }).click();
  });

  it('fits a phone, however long the words', async () => {
    const long = 'mooring'.repeat(18);
    await post('acme', 'ann', { event: long, payload: { [long]: long.repeat(4) }, source: long, priority: 'critical' });
    await sees(ben, long);
    await subscribe(ben, long, 0);
    await subscribedTo(ben, `${long}:acme`);
    await rows(ben, long).locator('summary').click();
    await rows(ben, long).locator('pre').waitFor();

    assert.equal(await overflows(ben.page), false, 'live');
    await showsHistory(ben);
    await ben.page.locator(`#history li[data-event-type="${long}"]`).waitFor();
    assert.equal(await overflows(ben.page), false, 'history');
    await showsLive(ben);
    await unsubscribe(ben, `${long}:acme`);
  });

  it('becomes somebody of another tenant, and sees nothing of before', async () => {
    const dan = await open(browser, broker, 'events#acme/dan/member');
    await subscribedTo(dan, 'tenant:acme');
    await send(ann, 'before_the_change');
    await sees(dan, 'before_the_change');

    await dan.page.locator('#tenant').fill('umbra');
    await dan.page.locator('#become').click();

    await subscribedTo(dan, 'tenant:umbra');
    assert.equal(await rows(dan, 'before_the_change').count(), 0);
    await send(eve, 'of_umbra');
    await sees(dan, 'of_umbra');
    assert.deepEqual(dan.faults, []);
    await dan.context.close();
  });

  it('comes back after a crash of the broker, with filter, subscriptions and what was missed', async () => {
    await subscribe(ben, 'ideas', 0);
    await subscribedTo(ben, 'ideas:acme');
    await unsubscribe(ben, 'tenant:acme');
    await choose(ben, 'priority', 'high');
    await send(ann, 'before_the_crash', { channel: 'ideas:acme', priority: 'high' });
    await sees(ben, 'before_the_crash');

    await broker.kill();
    for (const { page } of [ann, ben, eve]) await page.locator('#state:not([data-state="connected"])').waitFor();
    assert.ok(await ann.page.locator('#send').isDisabled());
    await ben.context.setOffline(true);
    await broker.start();

    for (const visit of [ann, eve]) await connected(visit);
    await send(ann, 'missed', { channel: 'ideas:acme', priority: 'high' });
    await send(ann, 'missed_but_filtered', { channel: 'ideas:acme', priority: 'low' });
    await send(ann, 'not_subscribed', { priority: 'high' });
    await sees(ann, 'not_subscribed');
    assert.equal(await rows(ben, 'missed').count(), 0, 'ben is cut off');
    await ben.context.setOffline(false);
    await connected(ben);
    await sees(ben, 'missed');
    await send(ann, 'not_subscribed', { priority: 'high' });
    await send(ann, 'afterwards', { channel: 'ideas:acme', priority: 'high' });
    await sees(ben, 'afterwards');

    assert.deepEqual(await types(ben), ['afterwards', 'missed', 'before_the_crash'], 'each once, and as filtered and subscribed before');
    await clearFilter(ben);
    await unsubscribe(ben, 'ideas:acme');
    await subscribe(ben, 'tenant', 0);
    await subscribedTo(ben, 'tenant:acme');
  });

  it('has the history from before the crash', async () => {
    await showsHistory(ann);
    await ann.page.locator('#history-channel').selectOption('ideas:acme');
    await ann.page.locator('#history li[data-event-type="afterwards"]').waitFor();
    const ideas = await types(ann, 'history');
    assert.deepEqual(ideas, ['afterwards', 'missed_but_filtered', 'missed', 'before_the_crash', 'idea_5', 'idea_4', 'idea_3', 'idea_2', 'idea_1']);
    await showsLive(ann);
  });

  it('looks like this', async () => {
    const desk = await open(browser, broker, 'events#harbour/ann/admin', { colorScheme: 'light' });
    const phone = await open(browser, broker, 'events#harbour/ben/member', { ...PHONE, colorScheme: 'dark' });
    for (const visit of [desk, phone]) await subscribedTo(visit, 'tenant:harbour');
    for (const [event, priority, source, payload] of [
      ['user_update', 'low', 'user_service', { user: 'cleo', language: 'en' }],
      ['idea_created', 'normal', 'idea_service', { title: 'A second crane', votes: 3 }],
      ['idea_updated', 'high', 'idea_service', { title: 'A second crane', votes: 41, comments: ['Yes', 'At last', 'Where would it stand, and who pays for it?'] }],
      ['storm_warning', 'critical', 'harbour_master', { from: '18:00', wind_kn: 48 }],
    ]) await post('harbour', 'cleo', { event, priority, source, payload });
    for (const visit of [desk, phone]) await sees(visit, 'storm_warning');
    for (const { page } of [desk, phone]) await page.locator('#status-history', { hasText: /^4$/ }).waitFor();

    await desk.picture('events-desktop');
    await phone.picture('events-phone');
    await phone.page.locator('#events').scrollIntoViewIfNeeded();
    await phone.picture('events-phone-list');
    assert.deepEqual([...desk.faults, ...phone.faults], []);
    for (const { context } of [desk, phone]) await context.close();
  });
});
