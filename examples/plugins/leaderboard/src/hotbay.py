"""The contract of Hotbay for plugins in Python: what happens in a channel becomes calls of methods, and what they ask for goes out
through `channel`. This file is a part of your project: read it, change it.

A plugin is a class. All methods but the constructor may be left out:

    __init__(channel, info, saved)    a channel starts; `saved` is what `save` returned before, or None
    on_join(channel, joined)          a connection joined: joined.member, joined.identity.user, .role, .claims
    on_leave(channel, left)           left.member, left.user, left.why
    on_message(channel, message)      message.member, message.user, message.payload; see `read_json`
    on_timer(channel, name)
    on_publish(channel, publication)  a server or another channel published: publication.source, publication.payload
    on_request(channel, request)      an HTTP request; returns what is answered: `Response`
    on_batch_end(channel)             after the last event of a batch: the place to write what they share
    save()                            what the next instance gets as `saved`: anything JSON can hold
    refused(why, frame)               static; what a client is sent whose frame was refused; None for nothing

All effects of a batch take hold together once they are on disk, or none does. `raise Refusal(…)` tells the sender that the event had no
effect: check first, then act. Any other exception undoes the whole batch and drops the instance; it stands in the broker's log, as
does what you `print`.

There are no files: import at the top of a module, where it happens while the component is made, and not within a function.
"""

import json
import random
import re
import sys
import traceback
from dataclasses import dataclass, field

from wit_world import exports
from wit_world.exports import handler as events
from wit_world.imports import channel as host
from wit_world.imports import kv, logging, types
from wit_world.imports.channel import Audience_All, Audience_Except, Audience_Only, Audience_User, Delivery, Priority, TimerKeep
from wit_world.imports.types import Payload_Binary, Payload_Text, RefusalCode


class Refusal(Exception):
    """Says no to the event that is being handled."""

    def __init__(self, message, code=RefusalCode.BAD_REQUEST):
        super().__init__(message)
        self.code = code


@dataclass
class Response:
    """An answer to an HTTP request. The body is bytes, a text, or anything else, which goes as JSON."""

    status: int = 200
    body: object = b""
    headers: list = field(default_factory=list)


class Channel:
    """The channel, as of the event that is being handled."""

    def _begin(self, now_ms, seed):
        self.now_ms = now_ms  # milliseconds since the Unix epoch; the same for all events of a batch
        self.random = random.Random(seed)  # the same numbers again in a replay
        self._event = 0

    def broadcast(self, what, **how):
        """Sends to all members. `what` is a text, bytes, or anything else, which goes as JSON."""
        self.emit(Audience_All(), what, **how)

    def send(self, member, what, **how):
        """Sends to one member."""
        self.emit(Audience_Only([member]), what, **how)

    def send_to_others(self, member, what, **how):
        """Sends to all members but one."""
        self.emit(Audience_Except(member), what, **how)

    def send_to_user(self, user, what, **how):
        """Sends to all connections of a user."""
        self.emit(Audience_User(user), what, **how)

    def emit(self, to, what, priority=Priority.NORMAL, conflate=None):
        """Sends to any audience of the contract. The rest says what becomes of the frame when a receiver is slow."""
        host.broadcast(self._event, to, _payload(what), Delivery(priority, conflate))

    def close(self, member, code, reason):
        """Closes a member's connection. The code is 1000, 1008 or 3000 to 4999."""
        host.close(member, code, reason)

    def publish(self, name, what):
        """Sends to another channel of the same tenant and mount."""
        host.publish(name, _payload(what))

    def set_timer(self, name, after_ms, keep=TimerKeep.DURABLE):
        """Calls `on_timer` once. A durable timer wakes a sleeping channel, also after a restart."""
        host.set_timer(name, after_ms, keep)

    def cancel_timer(self, name):
        host.cancel_timer(name)

    def members(self):
        """All members: .id, .identity."""
        return host.members()

    def member(self, id):
        """One member, or None."""
        return host.find_member(id)

    def get(self, key, default=None):
        """A value of the channel's durable state."""
        value = kv.get(key)
        return default if value is None else json.loads(value)

    def put(self, key, value):
        """Sets a value: anything JSON can hold."""
        kv.put(key, _json(value))

    def delete(self, key):
        kv.delete(key)

    def scan(self, prefix, limit=1_000):
        """Values whose keys begin with `prefix`, in the order of the keys: (key, value), at most 1,000."""
        return [(key, json.loads(value)) for key, value in kv.scan(prefix, kv.Order.ASCENDING, limit)]


def read_json(payload):
    """The JSON object of a text message; a refusal if it is none."""
    value = None
    try:
        if isinstance(payload.value, str) and not _is_deep(payload.value):
            value = json.loads(payload.value)
    except ValueError:
        pass
    if not isinstance(value, dict):
        raise Refusal("send a JSON object")
    return value


def _is_deep(text):
    """Whether JSON is nested so deeply that reading it would take more stack than a plugin has."""
    if text.count("[") + text.count("{") <= _DEPTH_MAX:
        return False
    depth = 0
    for sign in _SIGNS.findall(text):
        depth += 1 if sign in ("[", "{") else -1 if sign in ("]", "}") else 0
        if depth > _DEPTH_MAX:
            return True
    return False


_DEPTH_MAX = 64
# Brackets, and whole texts, whose brackets count for nothing.
_SIGNS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def plugin(Plugin):
    """Makes a class the plugin of this component: `Handler = plugin(Leaderboard)`."""

    channel = Channel()
    instance = None

    def call(name, *arguments):
        method = getattr(instance, name, None)
        return method(channel, *arguments) if method else None

    def dispatch(event):
        if isinstance(event, events.Event_Request):
            answer = call("on_request", event.value) or Response(404)
            host.respond(event.value.id, _response(answer))
        else:
            call(_METHODS[type(event)], event.value)

    class Handler(exports.Handler):
        """What the broker calls. Each call is on an object of its own, so nothing is kept here."""

        @_reporting
        def open(self, info, saved):
            nonlocal instance
            channel._begin(info.now_ms, info.seed)
            instance = Plugin(channel, info, json.loads(saved) if saved else None)

        @_reporting
        def handle(self, batch):
            channel._begin(batch.now_ms, batch.seed)
            for channel._event, event in enumerate(batch.events):
                try:
                    dispatch(event)
                except Refusal as no:
                    host.reject(channel._event, types.Refusal(no.code, str(no)))
            call("on_batch_end")

        @_reporting
        def save(self):
            saved = instance.save() if hasattr(instance, "save") else None
            return b"" if saved is None else _json(saved)

        def route(self, from_, frame):
            return events.Routing_Refuse(types.Refusal(RefusalCode.BAD_REQUEST, "this plugin does not route"))

        def refused(self, to, frame, why):
            if hasattr(Plugin, "refused"):
                told = Plugin.refused(why, frame)
                return None if told is None else _payload(told)
            return _payload({"type": "error", "code": why.code.name.lower(), "message": why.message})

    return Handler


def _reporting(function):
    """Says where an exception came from before it ends the instance. Without the source, which is not there."""

    def reporting(*arguments):
        try:
            return function(*arguments)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            for frame, line in traceback.walk_tb(error.__traceback__):
                print(f"    at {frame.f_code.co_name} ({frame.f_code.co_filename}:{line})", file=sys.stderr)
            raise

    return reporting


_METHODS = {
    events.Event_Join: "on_join",
    events.Event_Leave: "on_leave",
    events.Event_Message: "on_message",
    events.Event_Timer: "on_timer",
    events.Event_Publish: "on_publish",
}


def _json(value):
    return json.dumps(value, separators=(",", ":")).encode()


def _payload(what):
    if isinstance(what, bytes):
        return Payload_Binary(what)
    return Payload_Text(what if isinstance(what, str) else _json(what).decode())


def _response(answer):
    if isinstance(answer.body, (bytes, str)):
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        return host.HttpResponse(answer.status, answer.headers, body)
    return host.HttpResponse(answer.status, [("content-type", "application/json"), *answer.headers], _json(answer.body))


class _Lines:
    """Standard output and error, line by line into the broker's log."""

    def __init__(self, level):
        self.level = level
        self.line = ""

    def write(self, text):
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            logging.log(self.level, line)

    def flush(self):
        pass


sys.stdout = _Lines(logging.Level.INFO)
sys.stderr = _Lines(logging.Level.ERROR)
