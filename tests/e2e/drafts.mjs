// Stock y-websocket clients on one draft. `edit`: five of them make a thousand random edits while their connections come and
// go, and must end with the same document; prints its digest. `read`: a newcomer prints the digest of what the server has.
// Usage: node drafts.mjs edit|read URL DRAFT TOKEN SEED
import { createHash } from "node:crypto";
import WebSocket from "ws";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

const [mode, url, draft, token, seedText] = process.argv.slice(2);
const CLIENTS = 5;
const EDITS = 1_000;

// Whatever goes wrong, the test that runs this must not hang.
setTimeout(() => {
  console.error("timed out");
  process.exit(1);
}, 100_000).unref();

// mulberry32, a small generator with a seed: a failure can be run again.
let state = Number(seedText) >>> 0;
const random = (below) => {
  state = (state + 0x6d2b79f5) >>> 0;
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
};

const connect = () => {
  const doc = new Y.Doc();
  const provider = new WebsocketProvider(url, draft, doc, {
    WebSocketPolyfill: WebSocket,
    params: { token },
    disableBc: true,
    maxBackoffTime: 100,
  });
  return { doc, provider };
};

const content = (doc) =>
  JSON.stringify([doc.getText("text").toDelta(), doc.getMap("map").toJSON(), doc.getArray("array").toJSON()], (_, value) =>
    value && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value);
const digest = (doc) => createHash("sha256").update(content(doc)).digest("hex");
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Resolves when a condition holds; it is looked at whenever something happened. */
const until = async (holds) => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
};

const edit = ({ doc }, number) => {
  const text = doc.getText("text");
  const map = doc.getMap("map");
  const array = doc.getArray("array");
  switch (random(8)) {
    case 0:
      if (text.length > 0) {
        const at = random(text.length);
        text.delete(at, Math.min(1 + random(6), text.length - at));
      }
      break;
    case 1:
      map.set(`key-${random(12)}`, { number, nested: [null, true, "é\u{1F600}"] });
      break;
    case 2:
      map.delete(`key-${random(12)}`);
      break;
    case 3:
      array.insert(random(array.length + 1), [number, `item ${number}`]);
      break;
    case 4:
      if (array.length > 0) array.delete(random(array.length), 1);
      break;
    case 5:
      if (text.length > 2) text.format(random(text.length - 1), 1, { bold: random(2) === 0 });
      break;
    default:
      // Nothing of two UTF-16 units: no editor puts a cursor between them, and Yjs makes two broken ones of it.
      text.insert(random(text.length + 1), `${number.toString(36)}漢ß `);
  }
};

/** The connection breaks off, closes, or comes back. */
const disturb = ({ provider }) => {
  switch (random(3)) {
    case 0:
      provider.ws?.terminate();
      break;
    case 1:
      provider.disconnect();
      break;
    default:
      provider.connect();
  }
};

if (mode === "read") {
  const reader = connect();
  await new Promise((resolve) => reader.provider.once("sync", resolve));
  console.log(digest(reader.doc));
  process.exit(0);
}

const clients = Array.from({ length: CLIENTS }, connect);
await until(() => clients.every(({ provider }) => provider.synced));
let disturbed = 0;
for (let number = 0; number < EDITS; number += 1) {
  const client = clients[random(CLIENTS)];
  client.doc.transact(() => edit(client, number));
  if (random(25) === 0) {
    disturb(clients[random(CLIENTS)]);
    disturbed += 1;
  }
  if (random(3) === 0) await turn();
}
clients.forEach(({ provider }) => provider.connect());
await until(() => clients.every(({ provider }) => provider.synced));
await until(() => new Set(clients.map(({ doc }) => content(doc))).size === 1);
const newcomer = connect();
await until(() => newcomer.provider.synced && content(newcomer.doc) === content(clients[0].doc));
console.error(`${EDITS} edits, ${disturbed} disturbances, ${clients[0].doc.getText("text").length} characters`);
console.log(digest(clients[0].doc));
process.exit(0);
