// The contract of Hotbay for plugins in JavaScript: what happens in a channel becomes calls of methods, and what they ask for goes
// out through `channel`. This file is a part of your project: read it, change it.
//
// A plugin is a class. All methods but the constructor may be left out:
//
//   constructor(channel, { name, tenant, settings }, saved)   a channel starts; `saved` is what `save` returned before, or null
//   onJoin(channel, { member, user, identity })               a connection joined; identity = { user, role, claims, endpoint }
//   onLeave(channel, { member, user, why })
//   onMessage(channel, { member, user, payload, json() })     `payload` is a string, or a Uint8Array for a binary message
//   onTimer(channel, name)
//   onPublish(channel, { source, payload, json() })           a server or another channel published
//   onRequest(channel, { method, path, query, body, … })      an HTTP request; returns { status, headers, body }
//   onBatchEnd(channel)                                       after the last event of a batch: the place to write what they share
//   save()                                                    what the next instance gets as `saved`: anything JSON can hold
//   static refused(why, frame)                                what a client is sent whose frame was refused; null for nothing
//
// All effects of a batch take hold together once they are on disk, or none does. `throw new Refusal(…)` tells the sender that the
// event had no effect: check first, then act. Any other exception undoes the whole batch and drops the instance.

import host from "hotbay:channel/channel@0.1.0";
import kv from "hotbay:channel/kv@0.1.0";
import * as utf8 from "./utf8.js";

/// Says no to the event that is being handled. `code` is one of the contract's: bad-request, forbidden, not-found, conflict, …
export class Refusal extends Error {
  constructor(message, code = "bad-request") {
    super(message);
    this.code = code;
  }
}

/// The channel, as of the event that is being handled.
class Channel {
  nowMs = 0; // milliseconds since the Unix epoch; the same for all events of a batch
  #event = 0;
  #random = 0;

  begin(nowMs, seed) {
    this.nowMs = nowMs;
    this.#random = seed % 2 ** 32 >>> 0;
    this.at(0);
  }

  at(event) {
    this.#event = event;
  }

  /// A number from 0 to 1 (mulberry32), the same again in a replay.
  random() {
    let z = (this.#random = (this.#random + 0x6d2b79f5) >>> 0);
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }

  /// Sends to all members. `what` is a string, a Uint8Array, or anything else, which goes as JSON.
  broadcast(what, how) {
    this.emit({ tag: "all" }, what, how);
  }

  /// Sends to one member.
  send(member, what, how) {
    this.emit({ tag: "only", val: [member] }, what, how);
  }

  /// Sends to all members but one.
  sendToOthers(member, what, how) {
    this.emit({ tag: "except", val: member }, what, how);
  }

  /// Sends to all connections of a user.
  sendToUser(user, what, how) {
    this.emit({ tag: "user", val: user }, what, how);
  }

  /// Sends to any audience of the contract. `how` says what becomes of it when a receiver is slow.
  emit(to, what, { priority = "normal", conflate = null } = {}) {
    host.broadcast(this.#event, to, payload(what), { priority, conflate });
  }

  /// Closes a member's connection. `code` is 1000, 1008 or 3000 to 4999.
  close(member, code, reason) {
    host.close(member, code, reason);
  }

  /// Sends to another channel of the same tenant and mount.
  publish(name, what) {
    host.publish(name, payload(what));
  }

  /// Fires `onTimer` once. A durable timer wakes a sleeping channel, also after a restart.
  setTimer(name, afterMs, keep = "durable") {
    host.setTimer(name, afterMs, keep);
  }

  cancelTimer(name) {
    host.cancelTimer(name);
  }

  /// All members: { id, identity }.
  members() {
    return host.members();
  }

  /// One member, or null.
  member(id) {
    return host.findMember(id);
  }

  /// A value of the channel's durable state, or undefined.
  get(key) {
    return decode(kv.get(key));
  }

  /// Sets a value: anything JSON can hold.
  put(key, value) {
    kv.put(key, encode(value));
  }

  delete(key) {
    kv.delete(key);
  }

  /// Values whose keys begin with `prefix`, in the order of the keys: [[key, value], …], at most 1,000.
  scan(prefix, limit = 1_000) {
    return kv.scan(prefix, "ascending", limit).map(([key, value]) => [key, decode(value)]);
  }
}

/// Makes a class the plugin of this component: `export const handler = plugin(Poll);`
export function plugin(Plugin) {
  const channel = new Channel();
  let instance = null;

  const handlers = {
    join: (joined) => instance.onJoin?.(channel, { ...joined, user: joined.identity.user }),
    leave: (left) => instance.onLeave?.(channel, left),
    message: (message) => instance.onMessage?.(channel, received(message)),
    timer: (name) => instance.onTimer?.(channel, name),
    publish: (publication) => instance.onPublish?.(channel, received(publication)),
    request: (request) => host.respond(request.id, response(instance.onRequest?.(channel, request))),
  };

  return {
    open(info, saved) {
      channel.begin(info.nowMs, info.seed);
      instance = new Plugin(channel, { ...info, settings: JSON.parse(info.settings) }, decode(saved) ?? null);
    },

    handle({ nowMs, seed, events }) {
      channel.begin(nowMs, seed);
      events.forEach(({ tag, val }, event) => {
        channel.at(event);
        try {
          handlers[tag](val);
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          host.reject(event, { code: error.code, message: error.message });
        }
      });
      instance.onBatchEnd?.(channel);
    },

    save() {
      const saved = instance.save?.();
      return saved === undefined ? new Uint8Array() : encode(saved);
    },

    route: () => ({ tag: "refuse", val: { code: "bad-request", message: "this plugin does not route" } }),

    refused(_to, frame, why) {
      if (Plugin.refused) return payload(Plugin.refused(why, frame && frame.val));
      return payload({ type: "error", code: why.code, message: why.message });
    },
  };
}

function received(event) {
  const text = event.payload.val;
  return { ...event, payload: text, json: () => object(text) };
}

/// The JSON object that a text spells.
function object(text) {
  let value = null;
  try {
    if (typeof text === "string" && !isDeep(text)) value = JSON.parse(text);
  } catch {
    // Not JSON: refused below.
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Refusal("send a JSON object");
  return value;
}

/// Whether JSON is nested so deeply that reading it would take more stack than a plugin has.
function isDeep(text) {
  const DEPTH_MAX = 64;
  let brackets = 0;
  for (const bracket of ["[", "{"])
    for (let at = text.indexOf(bracket); at >= 0 && brackets <= DEPTH_MAX; at = text.indexOf(bracket, at + 1)) brackets += 1;
  if (brackets <= DEPTH_MAX) return false;
  let depth = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (quoted && sign === "\\") at += 1;
    else if (sign === '"') quoted = !quoted;
    else if (!quoted && (sign === "[" || sign === "{")) depth += 1;
    else if (!quoted && (sign === "]" || sign === "}")) depth -= 1;
    if (depth > DEPTH_MAX) return true;
  }
  return false;
}

function payload(what) {
  if (what === null || what === undefined) return null;
  if (what instanceof Uint8Array) return { tag: "binary", val: what };
  return { tag: "text", val: typeof what === "string" ? what : JSON.stringify(what) };
}

function response(answer) {
  const { status = 200, headers = [], body = "" } = answer ?? { status: 404 };
  const json = typeof body !== "string" && !(body instanceof Uint8Array);
  const type = json ? [["content-type", "application/json"]] : [];
  return { status, headers: [...type, ...headers], body: json ? encode(body) : bytes(body) };
}

const bytes = (body) => (typeof body === "string" ? utf8.encode(body) : body);
const encode = (value) => utf8.encode(JSON.stringify(value));
const decode = (bytes) => (bytes?.length ? JSON.parse(utf8.decode(bytes)) : undefined);
