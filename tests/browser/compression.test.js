// permessage-deflate (RFC 7692) with clients that others wrote: `ws` with each of its settings, and a browser.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { chromium } from 'playwright-core';
import WebSocket from 'ws';

import { Broker } from './broker.js';

const DEFLATE = 'permessage-deflate';
const LONG = 'All work and no play makes Jack a dull boy. '.repeat(80);
const TEXT = 'A sentence that comes again and again. ';

const frame = (type, channel, payload) => JSON.stringify({ type, channel, payload });

describe('permessage-deflate', { timeout: 120_000 }, () => {
  let broker, rooms = 0;

  before(async () => {
    broker = await Broker.start('--set', 'mount.community.compression.level=6');
  });

  after(() => broker?.remove());

  async function url(user) {
    const { token } = await (await fetch(`${broker.url}/demo/token?user=${user}`)).json();
    return `${broker.url.replace('http', 'ws')}/api/community/ws?token=${token}`;
  }

  /** A client of `ws` in a room. */
  async function enter(user, room, perMessageDeflate) {
    const socket = new WebSocket(await url(user), { perMessageDeflate });
    const client = { socket, waiting: [] };
    socket.on('message', (data) => client.waiting.push(JSON.parse(data)));
    client.until = async (type) => {
      for (;;) {
        const at = client.waiting.findIndex((message) => message.type === type);
        if (at >= 0) return client.waiting.splice(0, at + 1).at(-1);
        await once(socket, 'message');
      }
    };
    await once(socket, 'open');
    socket.send(frame('SUBSCRIBE', room));
    await client.until('SUBSCRIBED');
    return client;
  }

  const settings = [
    ['as it is by default', true, DEFLATE],
    ['for messages of any size', { threshold: 0 }, DEFLATE],
    ['with a small window of its own', { threshold: 0, clientMaxWindowBits: 9 }, DEFLATE],
    ['without context takeover', { threshold: 0, serverNoContextTakeover: true, clientNoContextTakeover: true }, DEFLATE],
    ['with the largest window', { threshold: 0, serverMaxWindowBits: 15 }, DEFLATE],
    ['with a window that is too small for us', { threshold: 0, serverMaxWindowBits: 10 }, ''],
    ['switched off', false, ''],
  ];
  for (const [name, perMessageDeflate, negotiated] of settings) {
    it(`works with ws, ${name}`, async () => {
      const room = `room:ws-${++rooms}`;
      const ann = await enter('ann', room, perMessageDeflate);
      const ben = await enter('ben', room, false);
      assert.equal(ann.socket.extensions, negotiated);
      assert.equal(ben.socket.extensions, '');
      const before = { read: ann.socket._socket.bytesRead, written: ann.socket._socket.bytesWritten };

      for (let round = 0; round < 20; round++) {
        const content = `${LONG} ${round}`;
        (round % 2 ? ann : ben).socket.send(frame('CHAT_MESSAGE', room, { content }));
        const got = [await ann.until('CHAT_MESSAGE'), await ben.until('CHAT_MESSAGE')];
        assert.deepEqual(got.map((message) => message.payload.content), [content, content]);
      }
      ann.socket.send(`{"type":"CHAT_MESSAGE",`, { fin: false });
      ann.socket.send(`"channel":"${room}","payload":{"content":"in `, { fin: false });
      ann.socket.ping('between');
      ann.socket.send(`pieces"}}`);
      assert.equal((await ben.until('CHAT_MESSAGE')).payload.content, 'in pieces');

      const read = ann.socket._socket.bytesRead - before.read, written = ann.socket._socket.bytesWritten - before.written;
      if (negotiated) assert.ok(read < 20 * 500 && written < 10 * 500, `${read} bytes read, ${written} written`);
      else assert.ok(read > 20 * LONG.length);
      ann.socket.close(1000);
      const [code] = await once(ann.socket, 'close');
      assert.equal(code, 1000);
      ben.socket.close();
    });
  }

  it('closes ws when a small message is too large', async () => {
    const ann = await enter('ann', 'room:large', { threshold: 0 });
    ann.socket.send('x'.repeat(65_537));
    const [code] = await once(ann.socket, 'close');
    assert.equal(code, 1009);
  });

  it('works with a browser', async () => {
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
    try {
      const page = await browser.newPage();
      await page.goto(`${broker.url}/demo/chat`);
      const [extensions, contents] = await page.evaluate(async ([url, text]) => {
        const socket = new WebSocket(url);
        const frames = [];
        const until = (count) => new Promise((resolve, reject) => {
          socket.onclose = (event) => reject(new Error(`closed with ${event.code}`));
          socket.onmessage = ({ data }) => {
            const frame = JSON.parse(data);
            if (frame.type === 'CHAT_MESSAGE') frames.push(frame.payload.content);
            if (frames.length === count) resolve();
          };
        });
        await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = () => reject(new Error('no connection')); });
        socket.send(JSON.stringify({ type: 'SUBSCRIBE', channel: 'room:browser' }));
        const all = until(10);
        for (let round = 0; round < 10; round++) {
          socket.send(JSON.stringify({ type: 'CHAT_MESSAGE', channel: 'room:browser', payload: { content: text.repeat(round) + round } }));
        }
        await all;
        return [socket.extensions, frames];
      }, [await url('ann'), TEXT]);
      assert.ok(extensions.startsWith(DEFLATE), extensions);
      assert.deepEqual(contents, Array.from({ length: 10 }, (_, round) => TEXT.repeat(round) + round));
    } finally {
      await browser.close();
    }
  });
});
