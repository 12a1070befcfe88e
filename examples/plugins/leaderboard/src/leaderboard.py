"""A leaderboard. Your game server publishes scores, and all who look on see the ten best change.

    publish         {"user":"ann","points":120}
    all get         {"type":"top","top":[["ann",120]]}
    send            {"type":"rank"}
    the sender gets {"type":"rank","rank":1,"points":120}
    GET /top        [["ann",120]]

Only a user's best score counts. Members whose token has the role `referee` may send {"type":"reset"}.
"""

from hotbay import Refusal, Response, plugin, read_json
from wit_world.imports.types import RefusalCode

TOP = 10
PLAYERS_MAX = 1_000  # As many as one `scan` answers; the last one makes room for a better one.
POINTS_MAX = 1_000_000_000
USER_LENGTH_MAX = 100


class Leaderboard:
    def __init__(self, channel, info, saved):
        """What a channel saved before it slept spares reading all scores again."""
        kept = saved if saved is not None else channel.scan("best/")
        self.best = {key.removeprefix("best/"): points for key, points in kept}
        self.shown = self.top()

    def save(self):
        return list(self.best.items())

    def on_join(self, channel, joined):
        channel.send(joined.member, {"type": "top", "top": self.shown})

    def on_publish(self, channel, publication):
        score = read_json(publication.payload)
        user, points = score.get("user"), score.get("points")
        if not isinstance(user, str) or not user.isprintable() or not 1 <= len(user) <= USER_LENGTH_MAX:
            raise Refusal(f"`user` must be a text of 1 to {USER_LENGTH_MAX} characters")
        if type(points) is not int or not 0 <= points <= POINTS_MAX:
            raise Refusal(f"`points` must be a whole number from 0 to {POINTS_MAX}")

        if points <= self.best.get(user, -1):
            return
        self.best[user] = points
        channel.put(f"best/{user}", points)
        if len(self.best) > PLAYERS_MAX:
            last, _ = self.ranked()[-1]
            del self.best[last]
            channel.delete(f"best/{last}")

    def on_message(self, channel, message):
        match read_json(message.payload).get("type"):
            case "rank":
                self.tell_rank(channel, message)
            case "reset":
                self.reset(channel, message)
            case _:
                raise Refusal('`type` must be "rank" or "reset"')

    def on_request(self, channel, request):
        if (request.method, request.path) == ("GET", "/top"):
            return Response(body=self.top())

    def on_batch_end(self, channel):
        """Many scores of one batch are one frame. A reader who is slow needs only the newest."""
        if self.shown != (top := self.top()):
            self.shown = top
            channel.broadcast({"type": "top", "top": top}, conflate="top")

    def tell_rank(self, channel, message):
        points = self.best.get(message.user)
        if points is None:
            raise Refusal("you have no points yet", RefusalCode.NOT_FOUND)
        rank = 1 + sum(other > points for other in self.best.values())
        channel.send(message.member, {"type": "rank", "rank": rank, "points": points})

    def reset(self, channel, message):
        sender = channel.member(message.member)  # None if its leave is in the same batch.
        if sender is None or sender.identity.role != "referee":
            raise Refusal("only a referee may do this", RefusalCode.FORBIDDEN)
        for user in self.best:
            channel.delete(f"best/{user}")
        self.best.clear()

    def ranked(self):
        """Users and points, the best first; who have as many stand in the order of their names."""
        return sorted(self.best.items(), key=lambda one: (-one[1], one[0]))

    def top(self):
        return [list(one) for one in self.ranked()[:TOP]]


Handler = plugin(Leaderboard)
