// Clients with npm `ws`, as the frontends of the systems have them: each speaks to one system, checks what comes back, and prints
// a line. Usage: node systems.mjs metrics|widgets|events|drafts URL TOKEN
import assert from "node:assert/strict";
import WebSocket from "ws";

const [system, url, token] = process.argv.slice(2);

// Whatever goes wrong, the test that runs this must not hang.
setTimeout(() => {
  console.error("timed out");
  process.exit(1);
}, 30_000).unref();

/** A socket whose messages can be waited for in order. */
const open = async (path, options = {}) => {
  const socket = new WebSocket(`${url}${path}`, options);
  const waiting = [];
  const messages = [];
  socket.on("message", (data) => {
    messages.push(JSON.parse(data.toString()));
    waiting.shift()?.();
  });
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const next = async () => {
    while (messages.length === 0) await new Promise((resolve) => waiting.push(resolve));
    return messages.shift();
  };
  const until = async (fits) => {
    for (;;) {
      const message = await next();
      if (fits(message)) return message;
    }
  };
  return { socket, next, until, send: (message) => socket.send(JSON.stringify(message)) };
};

/** Closes as a frontend does, and waits for the end. */
const close = ({ socket }) =>
  new Promise((resolve) => {
    socket.once("close", resolve);
    socket.close(1000);
  });

const speak = {
  async metrics() {
    const owner = await open("/api/ws", { headers: { authorization: `Bearer ${token}` } });
    assert.equal((await owner.next()).type, "connection_established");
    const update = await owner.next();
    assert.equal(update.type, "metrics_update");
    owner.send({ type: "ping", timestamp: 1 });
    assert.equal((await owner.until((message) => message.type === "pong")).data.timestamp, 1);
    assert.equal(await close(owner), 1000);
  },
  async widgets() {
    const path = `/api/realtime?token=${token}`;
    const [one, other] = [await open(path), await open(path)];
    const { userId } = await one.next();
    await other.next();
    one.send({ type: "WIDGET_UPDATE", id: "msg-1", timestamp: new Date().toISOString(), userId, payload: { widgetId: "w", data: { value: 1 } } });
    const ack = await one.next();
    assert.deepEqual([ack.type, ack.correlationId, ack.payload.received], ["ACK", "msg-1", true]);
    const update = await other.next();
    assert.deepEqual([update.type, update.payload.data, update.correlationId], ["WIDGET_UPDATE", { value: 1 }, undefined]);
    await Promise.all([close(one), close(other)]);
  },
  async events() {
    const client = await open(`/ws?tenant_id=acme&user_id=node&token=${token}`);
    assert.equal((await client.next()).eventType, "connection");
    client.send({ type: "subscribe", channel: "ideas", eventTypes: ["idea_created"] });
    assert.equal((await client.next()).eventType, "subscribed");
    client.send({ type: "idea_created", channel: "ideas", data: { title: "one" } });
    assert.deepEqual((await client.until((event) => event.eventType === "idea_created")).data, { title: "one" });
    await close(client);
  },
  async drafts() {
    const path = `/ws?draftId=ws-draft&token=${token}`;
    const [one, other] = [await open(path), await open(path)];
    assert.equal((await one.next()).type, "yjs-state-response");
    await other.next();
    // "x" by client 1 into the text `t`, as Yjs encodes it (version 1).
    const data = [1, 1, 1, 0, 4, 1, 1, 116, 1, 120, 0];
    one.send({ type: "yjs-update", data });
    assert.deepEqual(await other.next(), { type: "yjs-update", data });
    one.send({ type: "ping" });
    assert.equal((await one.next()).type, "pong");
    await Promise.all([close(one), close(other)]);
  },
};

await speak[system]();
console.log(`${system} ok`);
process.exit(0);
