// Numbers messages, for ever. Change it into what a channel of yours means.
//
//   who joins gets  {"count":0}
//   send            {"text":"hi"}
//   all get         {"number":1,"user":"ann","text":"hi"}

import { Refusal, plugin } from "./hotbay.js";

class Counter {
  // What must not be forgotten is in the channel's state: memory is lost when the plugin fails, or the broker.
  constructor(channel) {
    this.count = channel.get("count") ?? 0;
  }

  onJoin(channel, { member }) {
    channel.send(member, { count: this.count });
  }

  onMessage(channel, message) {
    const { text } = message.json();
    if (typeof text !== "string") throw new Refusal('send {"text":"…"}');
    this.count += 1;
    channel.put("count", this.count);
    channel.broadcast({ number: this.count, user: message.user, text });
  }
}

export const handler = plugin(Counter);
