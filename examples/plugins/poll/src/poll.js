// A poll. Anybody opens one, everybody votes and may change their mind, and when its time is up all see the result.
//
//   send     {"type":"open","question":"What shall we drink?","options":["tea","coffee"],"seconds":60}
//   all get  {"type":"poll","question":"What shall we drink?","options":["tea","coffee"],"closesAtMs":…,"votes":[0,0]}
//   send     {"type":"vote","option":"tea"}
//   all get  {"type":"votes","votes":[1,0]}
//   all get  {"type":"result","question":"What shall we drink?","options":["tea","coffee"],"votes":[1,0]}
//
// Who joins gets the poll as it is, or {"type":"none"}. A crash at any moment loses no vote that somebody has seen counted.

import { Refusal, plugin } from "./hotbay.js";

const TEXT_LENGTH_MAX = 200;
const OPTIONS_MAX = 10;
const SECONDS_MAX = 24 * 60 * 60;
const VOTERS_MAX = 3_000; // All votes are one value of the state, and a value has at most 1 MiB.

class Poll {
  constructor(channel) {
    this.poll = channel.get("poll") ?? null; // { question, options, closesAtMs }
    this.ballots = new Map(channel.get("ballots")); // user -> index of the option
    this.changed = false;
  }

  onJoin(channel, { member }) {
    channel.send(member, this.poll ? { type: "poll", ...this.poll, votes: this.votes() } : { type: "none" });
  }

  onMessage(channel, message) {
    const request = message.json();
    if (request.type === "open") this.open(channel, request);
    else if (request.type === "vote") this.vote(message.user, request);
    else throw new Refusal('`type` must be "open" or "vote"');
  }

  onTimer(channel) {
    channel.broadcast({ type: "result", question: this.poll.question, options: this.poll.options, votes: this.votes() });
    this.poll = null;
    this.ballots.clear();
    channel.delete("poll");
    channel.delete("ballots");
  }

  // Many votes of one batch are one write and one frame. A reader who is slow needs only the newest.
  onBatchEnd(channel) {
    if (!this.changed || !this.poll) return;
    this.changed = false;
    channel.put("ballots", [...this.ballots]);
    channel.broadcast({ type: "votes", votes: this.votes() }, { conflate: "votes" });
  }

  open(channel, { question, options, seconds }) {
    if (this.poll) throw new Refusal("a poll is open already", "conflict");
    if (!isText(question)) throw new Refusal(`\`question\` must be a text of 1 to ${TEXT_LENGTH_MAX} characters`);
    if (!Array.isArray(options) || options.length < 2 || options.length > OPTIONS_MAX || !options.every(isText))
      throw new Refusal(`\`options\` must be 2 to ${OPTIONS_MAX} texts of 1 to ${TEXT_LENGTH_MAX} characters`);
    if (new Set(options).size < options.length) throw new Refusal("two of the `options` are the same");
    if (!Number.isInteger(seconds) || seconds < 1 || seconds > SECONDS_MAX)
      throw new Refusal(`\`seconds\` must be a whole number from 1 to ${SECONDS_MAX}`);

    this.poll = { question, options, closesAtMs: channel.nowMs + seconds * 1_000 };
    channel.put("poll", this.poll);
    channel.setTimer("close", seconds * 1_000);
    channel.broadcast({ type: "poll", ...this.poll, votes: this.votes() });
  }

  vote(user, { option }) {
    if (!this.poll) throw new Refusal("no poll is open", "not-found");
    const index = this.poll.options.indexOf(option);
    if (index < 0) throw new Refusal("`option` is none of this poll's", "not-found");
    if (!this.ballots.has(user) && this.ballots.size >= VOTERS_MAX) throw new Refusal("too many have voted", "too-large");
    if (this.ballots.get(user) === index) return;
    this.ballots.set(user, index);
    this.changed = true;
  }

  /// How many voted for each option.
  votes() {
    const votes = this.poll.options.map(() => 0);
    for (const index of this.ballots.values()) votes[index] += 1;
    return votes;
  }
}

const isText = (value) => typeof value === "string" && value.length > 0 && value.length <= TEXT_LENGTH_MAX;

export const handler = plugin(Poll);
