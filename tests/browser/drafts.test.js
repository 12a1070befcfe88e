// The drafts in real browsers: two people write one text at once, by the stock y-websocket provider, and a third reads on a phone.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';

import { Broker } from './broker.js';
import { PHONE, collectFaults, has, keepPicture, launch, overflows } from './demo.js';

/** What stands in an editor, without the cursors of others, whose names are in the same elements. Runs in the page. */
function draftText(content) {
  return [...content.querySelectorAll('.cm-line')].map((line) => {
    const copy = line.cloneNode(true);
    for (const extra of copy.querySelectorAll('.remote-caret, .cm-placeholder')) extra.remove();
    return copy.textContent;
  }).join('\n');
}

/** Somebody who writes: what a person sees and does in a draft. */
class Writer {
  faults = [];

  /** Opens the page and enters under a name. */
  static async enter(browser, broker, name, draft, options = {}) {
    const writer = new Writer();
    writer.name = name;
    writer.context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: 'en-GB', ...options });
    await writer.context.addInitScript(`window.draftText = ${draftText}`);
    writer.page = await writer.context.newPage();
    collectFaults(writer.page, writer.faults);
    await writer.page.goto(`${broker.url}/demo/drafts#${draft}`);
    await writer.page.locator('#name').fill(name);
    await writer.page.getByRole('button', { name: 'Enter', exact: true }).click();
    await writer.isIn();
    return writer;
  }

  /** The draft is there, live and as it was stored. */
  async isIn() {
    await this.is('connected');
    await has(this.page, '.paper', 'data-loaded', 'true');
  }

  is(state) {
    return has(this.page, '#state', 'data-state', state);
  }

  /** Goes to a draft by its name. */
  async opens(draft) {
    const field = this.page.locator('#draft');
    await field.fill(draft);
    await field.press('Enter');
    await this.page.getByRole('heading', { name: `Draft ${draft}`, exact: true }).waitFor({ state: 'attached' });
    await this.isIn();
  }

  get editor() {
    return this.page.locator('.cm-content');
  }

  /** Writes where the cursor is after a key, such as `Control+End`. */
  async writes(text, key = 'Control+End') {
    await this.editor.focus();
    await this.page.keyboard.press(key);
    await this.page.keyboard.type(text);
  }

  text() {
    return this.editor.evaluate((content) => draftText(content));
  }

  /** Waits until the text is this one, or like this one. */
  reads(text) {
    const [source, isPattern] = text instanceof RegExp ? [text.source, true] : [text, false];
    return this.editor.evaluate((content, [expected, isPattern]) => new Promise((resolve) => {
      const look = () => {
        const now = draftText(content);
        if (isPattern ? new RegExp(expected).test(now) : now === expected) resolve();
        else requestAnimationFrame(look);
      };
      look();
    }), [source, isPattern]);
  }

  /** Waits until the cursor of another stands after this much of its line. */
  seesCaret(of, before) {
    return this.editor.evaluate((content, [user, expected]) => new Promise((resolve) => {
      const look = () => {
        const caret = content.querySelector(`.remote-caret[data-user="${user}"]`);
        const range = document.createRange();
        if (caret) range.setStart(caret.closest('.cm-line'), 0);
        if (caret) range.setEndBefore(caret);
        if (caret && range.toString() === expected) resolve();
        else requestAnimationFrame(look);
      };
      look();
    }), [of.name, before]);
  }

  /** The entry of somebody who is here. */
  person(name) {
    return this.page.locator(`#people li[data-user="${name}"]`);
  }

  goes(mode) {
    return this.page.locator(`input[name="mode"][value="${mode}"]`).check({ force: true });
  }

  async plays(role) {
    await this.page.locator(`input[name="role"][value="${role}"]`).check({ force: true });
    await has(this.page, '#editor', 'data-writable', String(role === 'editor'));
    await this.isIn();
  }

  pictures(name) {
    return keepPicture(this.page, name);
  }
}

describe('a draft', { timeout: 300_000 }, () => {
  let broker, browser, ann, ben, drafts = 0, draft;

  before(async () => {
    broker = await Broker.start();
    browser = await launch();
    ann = await Writer.enter(browser, broker, 'ann', 'start', { colorScheme: 'light' });
    ben = await Writer.enter(browser, broker, 'ben', 'start', { colorScheme: 'dark' });
  });

  // A draft per test, so that none depends on what another left behind.
  beforeEach(async () => {
    draft = `draft-${++drafts}`;
    for (const writer of [ann, ben]) await writer.opens(draft);
    await ann.person('ben').waitFor();
    await ben.person('ann').waitFor();
  });

  after(async () => {
    await browser?.close();
    await broker?.remove();
    for (const writer of [ann, ben]) assert.deepEqual(writer?.faults, [], 'faults of a page');
  });

  const bothRead = (text) => Promise.all([ann.reads(text), ben.reads(text)]);

  it('is written by two at once', async () => {
    await ann.writes('\n');
    await ben.reads('\n');

    const [first, second] = ['The tide turns at six, so we leave at five.', 'Bring ropes, bread and the small anchor.'];
    await Promise.all([ann.writes(first, 'Control+Home'), ben.writes(second, 'Control+End')]);

    await bothRead(`${first}\n${second}`);
    await ann.page.locator('#words', { hasText: /^17 words$/ }).waitFor();
  });

  it('ends as one text when both write in the same place', async () => {
    await Promise.all([ann.writes('aaaaaaaaaaaaaaaaaaaa'), ben.writes('bbbbbbbbbbbbbbbbbbbb')]);

    await bothRead(/^[ab]{40}$/);
    const text = await ann.text();
    assert.equal(text.replaceAll('b', ''), 'a'.repeat(20));
    assert.equal(text.replaceAll('a', ''), 'b'.repeat(20));
    await ben.reads(text);
  });

  it('shows who is here, where they are and what they have selected', async () => {
    assert.equal(await ann.person('ann').getAttribute('data-self'), 'true');
    assert.equal(await ann.person('ben').getAttribute('data-self'), 'false');
    await ann.writes('A line to stand in');
    await ben.seesCaret(ann, 'A line to stand in');
    await ben.page.locator('.remote-caret[data-user="ann"] .remote-name').getByText('ann', { exact: true }).waitFor();
    await ann.page.keyboard.press('Home');
    await ben.seesCaret(ann, '');
    await ben.writes(' for a while');
    await ann.seesCaret(ben, 'A line to stand in for a while');

    await ann.page.keyboard.press('Shift+Control+ArrowRight');
    await ben.page.locator('.remote-selection', { hasText: /^A$/ }).waitFor();

    await ann.page.locator('#leave').click();
    await ann.page.locator('#name').waitFor();
    await ben.person('ann').waitFor({ state: 'detached' });
    await ben.page.locator('.remote-caret').waitFor({ state: 'detached' });
    await ann.page.locator('#name').fill('ann');
    await ann.page.locator('#name').press('Enter');
    await ann.isIn();
    await ann.reads('A line to stand in for a while');
  });

  it('takes back only what one has written oneself', async () => {
    await ann.writes('Mine. ');
    await ben.reads('Mine. ');
    await ben.writes('Yours.');
    await ann.reads('Mine. Yours.');

    await ann.editor.focus();
    await ann.page.keyboard.press('Control+z');

    await bothRead('Yours.');
  });

  it('merges what both wrote offline', async () => {
    await ann.writes('common');
    await ben.reads('common');
    for (const writer of [ann, ben]) {
      await writer.goes('offline');
      await writer.is('offline');
    }

    await ann.writes('before ', 'Control+Home');
    await ben.writes(' after', 'Control+End');
    assert.equal(await ann.text(), 'before common');
    assert.equal(await ben.text(), 'common after');
    for (const { page } of [ann, ben]) {
      await page.locator('#unsent').waitFor();
      assert.ok(await page.locator('#leave').isDisabled());
    }

    await ann.goes('live');
    await ann.is('connected');
    await ann.page.locator('#unsent').waitFor({ state: 'detached' });
    assert.equal(await ann.text(), 'before common', 'ben is still offline');
    await ben.goes('live');

    await bothRead('before common after');
    await ben.page.locator('#unsent').waitFor({ state: 'detached' });
  });

  it('does not let changes that are only here be lost by another role', async () => {
    await ann.goes('offline');
    await ann.writes('Only here');

    await ann.page.locator('input[name="role"][value="viewer"]').click({ force: true });

    await ann.page.locator('#notices .notice', { hasText: 'only here' }).waitFor();
    assert.equal(await ann.text(), 'Only here');
    await ann.goes('live');
    await bothRead('Only here');
    await ann.page.locator('#notices').getByRole('button', { name: 'Dismiss' }).click();
  });

  it('is read by a viewer, who cannot write', async () => {
    await ann.writes('First. ');
    await ben.reads('First. ');

    await ben.plays('viewer');
    await has(ann.page, '#people li[data-user="ben"]', 'data-viewer', 'true');
    await ben.reads('First. ');
    assert.equal(await ben.editor.getAttribute('contenteditable'), 'false');
    await ben.editor.click();
    await ben.page.keyboard.type('Not allowed');
    await ann.writes('Second.');
    await ben.reads('First. Second.');
    assert.equal(await ann.text(), 'First. Second.');
    await ben.pictures('drafts-viewer');

    await ben.plays('editor');
    await ben.reads('First. Second.');
    await ben.writes(' Third.');
    await bothRead('First. Second. Third.');
  });

  it('goes on after a crash of the broker, with what was written meanwhile', async () => {
    await ann.writes('Before. ');
    await ben.reads('Before. ');

    await broker.kill();
    for (const writer of [ann, ben]) await writer.is('reconnecting');
    await ann.writes('Meanwhile. ');
    await ann.page.locator('#unsent').waitFor();
    assert.equal(await ben.text(), 'Before. ');
    await broker.start();

    await Promise.all([ann.is('connected'), ben.is('connected')]);
    await bothRead('Before. Meanwhile. ');
    await ann.page.locator('#unsent').waitFor({ state: 'detached' });
    await ben.writes('Afterwards.');
    await bothRead('Before. Meanwhile. Afterwards.');
    await ann.person('ben').waitFor();
    assert.equal(await ann.page.locator('#people li').count(), 2, 'nobody twice');
  });

  it('is kept by the broker, when nobody has it open and after a crash', async () => {
    const text = 'Kept on disk, not only in the pages.';
    await ann.writes(text);
    await ben.reads(text);
    for (const writer of [ann, ben]) await writer.opens('elsewhere');
    await broker.kill();
    for (const writer of [ann, ben]) await writer.is('reconnecting');
    await broker.start();
    for (const writer of [ann, ben]) await writer.is('connected');

    const cleo = await Writer.enter(browser, broker, 'cleo', draft);

    await cleo.reads(text);
    assert.equal(await cleo.person('ann').count(), 0);
    assert.deepEqual(cleo.faults, []);
    await cleo.context.close();
  });

  it('shows markup as text', async () => {
    const text = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
    await ann.writes(text);

    await ben.reads(text);
    assert.equal(await ben.editor.locator('img[src="x"], script').count(), 0);
  });

  it('fits a phone, and looks like this', async () => {
    const lines = ['Departure is on Friday, on the morning tide.', '', 'We meet at berth seven at five. Bring oilskins, bread, and the small anchor; the big one stays ashore.', '', 'The forecast speaks of a south-westerly of five, easing later.'];
    await ann.writes(lines.join('\n'));
    await ben.reads(lines.join('\n'));
    const cleo = await Writer.enter(browser, broker, 'cleo-of-the-long-name', draft, { ...PHONE, colorScheme: 'dark' });
    await cleo.reads(lines.join('\n'));
    for (const writer of [ann, ben]) await writer.person(cleo.name).waitFor();

    await ben.writes('', 'Control+Home');
    await ben.page.keyboard.press('Shift+Control+ArrowRight');
    await cleo.writes('');
    for (const of of [ben, cleo]) await ann.page.locator(`.remote-caret[data-user="${of.name}"]`).waitFor();
    for (const of of [ann, ben]) await cleo.page.locator(`.remote-caret[data-user="${of.name}"]`).waitFor();
    assert.equal(await overflows(cleo.page), false);
    await ann.pictures('drafts-desktop');
    await ben.pictures('drafts-desktop-dark');
    await cleo.pictures('drafts-phone');

    const dora = await Writer.enter(browser, broker, 'd'.repeat(40), draft);
    await dora.writes('');
    await cleo.page.locator(`.remote-caret[data-user="${dora.name}"]`).waitFor();
    assert.equal(await overflows(cleo.page), false, 'a long name beside a cursor');
    await dora.context.close();

    const long = 'Windjammer'.repeat(30);
    await ann.writes(`\n${long}`);
    await cleo.page.locator('.cm-line', { hasText: long }).waitFor();
    assert.equal(await overflows(cleo.page), false, 'a long word');
    await cleo.page.locator('#leave').click();
    await cleo.page.locator('#name').waitFor();
    assert.equal(await overflows(cleo.page), false, 'the door');
    await cleo.pictures('drafts-phone-door');
    assert.deepEqual(cleo.faults, []);
    await cleo.context.close();
  });
});
