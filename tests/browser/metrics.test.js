// The owner dashboard in a real browser against a real broker and its demo database.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { Broker } from './broker.js';
import { PHONE, has, launch, open, overflows } from './demo.js';

describe('the metrics page', { timeout: 300_000 }, () => {
  let broker, browser, desk, phone;

  before(async () => {
    broker = await Broker.start();
    browser = await launch();
    desk = await open(browser, broker, 'metrics#ann', { colorScheme: 'light' });
    phone = await open(browser, broker, 'metrics#ann', { ...PHONE, colorScheme: 'dark' });
  });

  after(async () => {
    await browser?.close();
    await broker?.remove();
    for (const visit of [desk, phone]) assert.deepEqual(visit?.faults, [], 'faults of a page');
  });

  it('shows the figures of an owner, with charts', async () => {
    for (const { page } of [desk, phone]) {
      await has(page, '#state', 'data-state', 'connected');
      for (const figure of ['revenue', 'bookings', 'listings', 'occupancy']) await has(page, `#${figure}`, 'data-loaded', 'true');
      assert.equal(await overflows(page), false);
    }
    assert.match(await desk.page.locator('#occupancy').innerText(), /^\d+(\.\d)? %$/);
    assert.ok((await desk.page.locator('.chart canvas').count()) >= 4);
  });

  it('shows a booking the moment it is published', async () => {
    const key = await broker.apiKey('shop');
    const publish = (bookingId) => fetch(`${broker.url}/v1/channels/owner:ann/publish`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}` },
      body: JSON.stringify({ type: 'booking_updated', data: { bookingId, status: 'confirmed' } }),
    });
    assert.equal((await publish('b-7')).status, 200);
    for (const { page } of [desk, phone]) await page.locator('#events .event', { hasText: 'Booking b-7' }).waitFor();
    await desk.picture('metrics-desktop');
    await phone.picture('metrics-phone');
  });

  it('goes to another owner and back', async () => {
    await desk.page.locator('#owner').fill('bob');
    await desk.page.locator('#owner-show').click();
    await has(desk.page, '#state', 'data-state', 'connected');
    await desk.page.locator('#events .event').first().waitFor({ state: 'detached' });
    assert.equal(new URL(desk.page.url()).hash, '#bob');
    await desk.page.goBack();
    await has(desk.page, '#state', 'data-state', 'connected');
  });

  it('comes back after a crash of the broker', async () => {
    await broker.kill();
    await phone.page.locator('#state:not([data-state="connected"])').waitFor();
    await broker.start();
    await has(phone.page, '#state', 'data-state', 'connected');
  });
});
