"""Numbers messages, for ever. Change it into what a channel of yours means.

    who joins gets  {"count":0}
    send            {"text":"hi"}
    all get         {"number":1,"user":"ann","text":"hi"}
"""

from hotbay import Refusal, plugin, read_json


class Counter:
    def __init__(self, channel, info, saved):
        """What must not be forgotten is in the channel's state: memory is lost when the plugin fails, or the broker."""
        self.count = channel.get("count", 0)

    def on_join(self, channel, joined):
        channel.send(joined.member, {"count": self.count})

    def on_message(self, channel, message):
        text = read_json(message.payload).get("text")
        if not isinstance(text, str):
            raise Refusal('send {"text":"…"}')
        self.count += 1
        channel.put("count", self.count)
        channel.broadcast({"number": self.count, "user": message.user, "text": text})


Handler = plugin(Counter)
