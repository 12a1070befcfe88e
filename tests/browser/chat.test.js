// The chat page in a real browser against a real broker. Every step waits for what a person would wait for; nothing sleeps.
//
// HOTBAY_BIN is the broker (target/debug/hotbay), CHROMIUM the browser (/usr/bin/chromium). Pictures go to target/browser.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { chromium } from 'playwright-core';

import { Broker } from './broker.js';
import { Visitor } from './visitor.js';

const QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

describe('the chat page', { timeout: 300_000 }, () => {
  let broker, browser, ann, ben, rooms = 0;

  before(async () => {
    broker = await Broker.start();
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: QUIET });
    ann = await Visitor.enter(browser, broker, 'ann', { colorScheme: 'light' });
    ben = await Visitor.enter(browser, broker, 'ben', { colorScheme: 'dark' });
  });

  // A room per test, so that none depends on what another left behind.
  beforeEach(async () => {
    const room = `room-${++rooms}`;
    await ann.opens(room);
    await ben.opens(room);
    await ann.sees('2 people here');
  });

  after(async () => {
    await browser?.close();
    await broker?.remove();
    for (const visitor of [ann, ben]) assert.deepEqual(visitor?.faults, [], 'faults of a page');
  });

  it('carries messages both ways', async () => {
    await ann.says('Is anybody there?');
    await ben.reads('Is anybody there?');
    await ben.says('Just me.');
    await ann.reads('Just me.');

    assert.equal(await ann.messages('Is anybody there?').count(), 1, 'the sender sees one, not one more for the echo');
    await ann.pictures('desktop-light');
    await ben.pictures('desktop-dark');
  });

  it('shows who is typing, and that they stopped', async () => {
    await ann.field.pressSequentially('Hm');
    await ben.sees('ann is typing…');
    await ben.pictures('typing');

    await ann.field.fill('');
    await ben.page.getByText('ann is typing…').waitFor({ state: 'hidden' });
  });

  it('edits a message for everyone', async () => {
    await ann.says('The tide is hihg');
    await ben.reads('The tide is hihg');

    await ann.presses('Edit', 'The tide is hihg');
    await ann.writes('The tide is high');

    await ben.reads('The tide is high');
    await ben.messages('The tide is high').getByText('edited').waitFor();
    await ben.misses('The tide is hihg');
  });

  it('deletes a message for everyone, after asking', async () => {
    await ann.says('Forget this');
    await ben.reads('Forget this');

    await ann.presses('Delete', 'Forget this');
    await ann.page.getByRole('button', { name: 'Delete it' }).click();

    await Promise.all([ann.misses('Forget this'), ben.misses('Forget this')]);
  });

  it('lets only authors change their messages', async () => {
    await ann.says('Mine alone');
    await ben.reads('Mine alone');

    assert.equal(await ben.messages('Mine alone').getByRole('button').count(), 0);
  });

  it('has the same history after a reload', async () => {
    await ann.says('Before the reload');
    await ben.says('Read by both');
    await ann.reads('Read by both');

    await ann.page.reload();
    await ann.isIn();

    await ann.reads('Before the reload');
    await ann.reads('Read by both');
  });

  it('counts what is unread in other rooms', async () => {
    const room = `room-${rooms}`;
    await ann.opens(`elsewhere-${rooms}`);
    await ben.says('One');
    await ben.says('Two');

    await ann.page.getByRole('button', { name: `${room}, 2 unread` }).click();
    await ann.reads('Two');
    await ann.page.getByRole('button', { name: room, exact: true }).waitFor();
    await ann.sees('New');
  });

  it('shows markup as text', async () => {
    const texts = ['<img src=x onerror="alert(1)">', '</p><script>alert(2)</script>', '&lt;b&gt; & <b>bold</b>', '<a href="javascript:alert(3)">x</a>'];
    for (const text of texts) {
      await ann.says(text);
      await ben.reads(text);
    }

    const log = ben.page.getByRole('log');
    assert.equal(await log.locator('img, script, .text b, .text a').count(), 0);
    assert.deepEqual(ben.faults, []);
  });

  it('reconnects to a broker that was killed, and gets what was said meanwhile', async () => {
    await ann.says('Before the storm');
    await ben.reads('Before the storm');

    await broker.kill();
    await Promise.all([ann.sees('Reconnecting'), ben.sees('Reconnecting')]);
    await ann.pictures('reconnecting');
    await ann.writes('Written in the storm');
    await ben.context.setOffline(true);

    await broker.start();
    await ann.reads('Written in the storm');
    // More than the newest 50 messages that every subscription gets: without `since` the first ones would be lost.
    for (let n = 1; n <= 60; n++) await ann.says(`Meanwhile ${n}.`);
    assert.equal(await ben.messages('Meanwhile').count(), 0, 'ben is cut off');
    await ben.context.setOffline(false);

    await ben.reads('Meanwhile 60.');
    const texts = await ben.page.locator('.msg .text').allTextContents();
    const expected = ['Before the storm', 'Written in the storm', ...Array.from({ length: 60 }, (_, n) => `Meanwhile ${n + 1}.`)];
    assert.deepEqual(texts, expected, 'each message once, in order');
  });

  it('fits a phone', async () => {
    const phone = { viewport: { width: 375, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
    await ann.says(`A long word: ${'harbour'.repeat(60)} https://example.com/${'path/'.repeat(40)}`);
    const cleo = await Visitor.enter(browser, broker, 'cleo', phone);
    const fits = async (where) => {
      const width = await cleo.page.evaluate(() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth));
      assert.equal(width, 375, where);
    };
    await fits('the lobby');

    await cleo.page.getByRole('button', { name: /^Rooms/ }).click();
    await cleo.pictures('phone-rooms');
    await fits('the rooms');
    await cleo.opens(`room-${rooms}`);
    await cleo.reads('A long word');
    await cleo.says('From the phone');
    await fits('a long message');
    await cleo.pictures('phone');

    await cleo.page.getByRole('button', { name: /^Who is here/ }).click();
    await cleo.page.getByRole('complementary', { name: 'Who is here' }).getByText('ann').waitFor();
    await cleo.page.keyboard.press('Escape');
    await ann.reads('From the phone');
    assert.deepEqual(cleo.faults, []);
    await cleo.leaves();
  });

  it('keeps the page small however much is said', async () => {
    for (let n = 1; n <= 240; n++) await ann.says(`Line ${n}.`);
    await ben.reads('Line 240.');

    assert.ok(await ben.page.locator('.msg').count() <= 200);
    await ben.page.getByRole('button', { name: 'Earlier messages' }).click();
    await ben.reads('Line 1.');
  });
});

describe('what the demo gives out', () => {
  let broker;
  before(async () => { broker = await Broker.start(); });
  after(async () => { await broker?.remove(); });

  it('is a page that may only run its own script', async () => {
    const response = await fetch(`${broker.url}/demo/chat`);
    const policy = response.headers.get('content-security-policy');
    assert.match(policy, /default-src 'none'/);
    assert.match(policy, /script-src 'sha256-[^']+';/);
    assert.doesNotMatch(policy, /unsafe/);
  });

  it('is no token for a name that is not one', async () => {
    for (const user of ['', 'a b', 'a:b', '../x', 'ä', 'x'.repeat(129)]) {
      const response = await fetch(`${broker.url}/demo/token?user=${encodeURIComponent(user)}`);
      assert.equal(response.status, 400, user);
    }
    assert.equal((await fetch(`${broker.url}/demo/token?user=ann`)).status, 200);
  });
});
