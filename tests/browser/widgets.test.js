// The widget board in a real browser: two panes on a page, and a second page, on one dashboard.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { Broker } from './broker.js';
import { PHONE, has, launch, open, overflows } from './demo.js';

describe('the widget board', { timeout: 300_000 }, () => {
  let broker, browser, desk, phone, left, right;

  before(async () => {
    broker = await Broker.start();
    browser = await launch();
    desk = await open(browser, broker, 'widgets#board', { colorScheme: 'light' });
    desk.page.setDefaultTimeout(10_000);
    phone = await open(browser, broker, 'widgets#board', { ...PHONE, colorScheme: 'dark' });
    const panes = await desk.page.locator('[data-pane]').evaluateAll((all) => all.map((pane) => pane.dataset.pane));
    [left, right] = panes.map((name) => ({ name, at: desk.page.locator(`[data-pane="${name}"]`) }));
    for (const pane of [left, right]) await has(desk.page, `#${pane.name}-state`, 'data-state', 'connected');
  });

  after(async () => {
    await browser?.close();
    await broker?.remove();
    for (const visit of [desk, phone]) assert.deepEqual(visit?.faults, [], 'faults of a page');
  });

  const inSync = (pane) => has(desk.page, `#${pane.name}-sync`, 'data-sync', 'synced');
  const mode = (pane, value) => pane.at.locator(`input[name="${pane.name}-mode"][value="${value}"]`).check({ force: true });
  const write = async (widget, value) => {
    const field = widget.locator('input[name="value"]');
    await field.fill(value);
    await field.press('Enter');
  };

  it('shows on every pane and page what one adds', async () => {
    await left.at.locator('[data-action="add"]').click();
    for (const where of [left.at, right.at, phone.page]) await where.locator('[data-widget-id]').first().waitFor();
    await write(left.at.locator('[data-widget-id]').first(), '42');
    const shows = (where, value) => where.locator(`[data-widget-id] input[name="value"]`).first().evaluate(
      (field, expected) => new Promise((resolve) => { const look = () => (field.value === expected ? resolve() : requestAnimationFrame(look)); look(); }), value);
    for (const where of [right.at, phone.page]) await shows(where, '42');
    await inSync(left);
    assert.equal(await overflows(phone.page), false);
  });

  it('keeps changes while offline and asks about a conflict', async () => {
    await mode(left, 'offline');
    await write(left.at.locator('[data-widget-id]').first(), 'mine');
    await left.at.locator(`#${left.name}-pending:not([hidden])`).waitFor();
    await write(right.at.locator('[data-widget-id]').first(), 'theirs');
    await inSync(right);

    await mode(left, 'live');

    const dialog = left.at.locator('[role="alertdialog"]');
    await dialog.waitFor();
    await desk.picture('widgets-conflict');
    await dialog.locator('[data-resolve="client"]').click();
    await dialog.waitFor({ state: 'detached' });
    await inSync(left);
    for (const where of [left.at, right.at, phone.page]) {
      await where.locator('[data-widget-id] input[name="value"]').first().evaluate(
        (field) => new Promise((resolve) => { const look = () => (field.value === 'mine' ? resolve() : requestAnimationFrame(look)); look(); }));
    }
  });

  it('moves widgets and restores an earlier layout', async () => {
    await left.at.locator('[data-action="add"]').click();
    await left.at.locator('[data-widget-id]').nth(1).waitFor();
    await inSync(left);
    const before = await left.at.locator('[data-widget-id]').evaluateAll((all) => all.map((widget) => widget.dataset.widgetId));
    const becomes = (expected) => right.at.evaluate((pane, ids) => new Promise((resolve) => {
      const look = () => {
        const now = [...pane.querySelectorAll('[data-widget-id]')].map((widget) => widget.dataset.widgetId);
        if (now.join() === ids.join()) resolve(); else requestAnimationFrame(look);
      };
      look();
    }), expected);
    // Without a layout each pane has its own order; this one makes the left one's everybody's.
    await left.at.locator('[data-action="wide"]').first().click();
    await inSync(left);
    await becomes(before);
    await left.at.locator('[data-action="forward"]').first().click();
    await becomes([before[1], before[0]]);
    await inSync(left);
    await left.at.locator('[data-action="restore"]').click();
    await becomes(before);
    await desk.picture('widgets-desktop');
    await phone.picture('widgets-phone');
  });

  it('survives a crash of the broker', async () => {
    await broker.kill();
    await desk.page.locator(`#${left.name}-state:not([data-state="connected"])`).waitFor();
    await broker.start();
    await has(desk.page, `#${left.name}-state`, 'data-state', 'connected');
    await inSync(left);
  });
});
