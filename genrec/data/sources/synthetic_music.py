"""An invented music service whose listeners' true preferences are known: no files, no download, readable names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from genrec.annotations import Count, Natural, NotNegative, Positive, Rate, Share, check_arguments
from genrec.contracts import TEST, VAL, GenrecError
from genrec.data.interactions import ITEM_ID, TEXT, TITLE, USER_ID, DataReport, InteractionLog, SourceData
from genrec.data.ragged import Ragged
from genrec.data.relations import relation_of_column
from genrec.data.sources.lastfm import PLAY_COUNT
from genrec.data.splits import SplitResult
from genrec.graph import ITEM, USER, Relation

ARTIST, GENRE = "artist", "genre"
GENRES = (
    "Dream Pop", "Harbour Folk", "Glass Techno", "Night Jazz", "Desert Rock", "Tape Soul", "Chamber Punk", "Slow House",
    "Arctic Ambient", "Brass Funk", "Meadow Country", "Neon Wave", "Iron Metal", "Velvet Blues", "Island Dub",
    "Paper Rap",
)  # fmt: skip
_TITLE_WORDS = (
    (
        "Paper", "Hollow", "Silent", "Golden", "Borrowed", "Electric", "Crooked", "Distant", "Burning", "Frozen",
        "Wandering", "Broken", "Midnight", "Copper", "Gentle", "Restless", "Faded", "Secret", "Lonely", "Marble",
        "Rising", "Scarlet", "Sleeping", "Sudden", "Tender", "Thirteen", "Weightless", "Wild", "Winter", "Yellow",
        "Second", "Drifting", "Plastic", "Honest", "Ordinary", "Quiet", "Tangled", "Painted", "Salt", "Early",
    ),
    (
        "Lanterns", "Rivers", "Letters", "Mirrors", "Highways", "Gardens", "Ghosts", "Signals", "Summers", "Shadows",
        "Stations", "Bridges", "Feathers", "Hearts", "Islands", "Machines", "Mountains", "Oceans", "Pictures", "Embers",
        "Ruins", "Satellites", "Seasons", "Stairs", "Stories", "Strangers", "Thunder", "Trains", "Umbrellas", "Valleys",
        "Voices", "Windows", "Wolves", "Balloons", "Candles", "Daydreams", "Echoes", "Fences", "Harvest", "Kites",
    ),
)  # fmt: skip
_ARTIST_WORDS = (
    (
        "Velvet", "Northern", "Silver", "Marigold", "Halcyon", "Static", "Juniper", "Cobalt", "Wayward", "Lunar",
        "Amber", "Concrete", "Saffron", "Polar", "Crimson", "Hazel",
    ),
    (
        "Foxes", "Parade", "Harbour", "Orchard", "Committee", "Sparrows", "Theory", "Arcade", "Society", "Twins",
        "Lighthouse", "Union", "Carousel", "Pilots", "Assembly", "Tigers",
    ),
)  # fmt: skip
_START = 1_577_836_800  # 2020-01-01, Unix seconds
_DAY, _HOUR = 86_400, 3_600
_LEAST_HABIT, _MOST_HABIT = 0.5, 1.5  # how far the habits of one listener lie from the average, as a factor
_SPREAD = 2  # shape of the negative binomial law of activity: the smaller, the more unequal


@dataclass(frozen=True)
class Listening:
    """What listeners truly like: how likely each song is to be the next that a listener discovers.

    U users, N songs, G genres, A artists, F favourite artists of a user. ``artist`` and ``genre`` (N,) of every song;
    ``popularity`` (N,) above 0, sums to 1; ``taste`` (U, G) shares of the genres, rows sum to 1; ``favourites`` (U, F)
    artists; ``explore`` (U,) the share that a listener picks from all that is popular; ``artist_share`` the share
    picked from the favourite artists.
    """

    artist: np.ndarray
    genre: np.ndarray
    popularity: np.ndarray
    taste: np.ndarray
    favourites: np.ndarray
    explore: np.ndarray
    artist_share: float

    @property
    def num_items(self) -> int:
        return len(self.popularity)

    @property
    def num_users(self) -> int:
        return len(self.taste)

    @property
    def num_artists(self) -> int:
        return int(self.artist.max()) + 1

    def probabilities(self, users: np.ndarray) -> np.ndarray:
        """(B, N) chances p_u(i) of each song for the given users, before anything is known to them; rows sum to 1.

        Popularity counts within a genre, within the songs of all favourite artists, and among all songs.
        """
        in_genre = self.popularity / np.bincount(self.genre, weights=self.popularity)[self.genre]
        is_favourite = np.zeros((len(users), self.num_artists), dtype=bool)
        is_favourite[np.arange(len(users))[:, None], self.favourites[users]] = True
        liked = np.where(is_favourite[:, self.artist], self.popularity, 0.0)
        liked /= liked.sum(axis=1, keepdims=True)
        explore = self.explore[users, None]
        chances = (1 - self.artist_share - explore) * self.taste[users][:, self.genre] * in_genre
        return chances + self.artist_share * liked + explore * self.popularity

    @cached_property
    def artist_shares(self) -> np.ndarray:
        """(U, A) how much of a user's listening falls to each artist."""
        songs_of = np.zeros((self.num_items, self.num_artists))
        songs_of[np.arange(self.num_items), self.artist] = 1.0
        return np.concatenate([self.probabilities(users) @ songs_of for users in _chunks(self.num_users)])


class SyntheticMusicSource:
    """Draws the listeners of an invented music service; the same arguments give the same data on every machine.

    A user's songs are drawn one after the other from what is likely for the user (``Listening``), without those drawn
    before, renormalised. One interaction per user and song, at the time of its first play; ``play_count`` says how
    often it was played, and is the larger the better a song fits. ``mean_length`` songs per user on average, at least
    ``min_length``. Friends are drawn from tastes, not from what was played.
    """

    def __init__(
        self,
        *,
        num_users: Count = 800,
        num_items: Count = 1200,
        num_artists: Count = 120,
        num_genres: Count = 12,
        mean_length: Positive = 40.0,
        min_length: Count = 10,
        taste_concentration: Positive = 0.05,
        num_favourites: Count = 5,
        artist_share: Rate = 0.3,
        explore_share: Positive = 0.1,
        stray_share: Share = 0.15,
        popularity_exponent: NotNegative = 1.0,
        session_length: Count = 6,
        mean_replays: NotNegative = 6.0,
        num_friends: Natural = 4,
        homophily: NotNegative = 4.0,
        seed: Natural = 42,
    ) -> None:
        check_arguments(SyntheticMusicSource.__init__, locals(), "data.source")
        _check_sizes(num_items, num_artists, num_genres, num_favourites)
        _check_users(num_users, num_items, mean_length, min_length, num_friends)
        if artist_share + _MOST_HABIT * explore_share > 1:
            raise GenrecError(
                f"data.source.artist_share={artist_share} and explore_share={explore_share} leave nothing for a user's "
                f"genres: a user explores up to {_MOST_HABIT} times the average, so artist_share + {_MOST_HABIT} * "
                "explore_share must not be above 1. Lower one of them."
            )
        self.num_users = num_users
        self.num_items = num_items
        self.num_artists = num_artists
        self.num_genres = num_genres
        self.mean_length = mean_length
        self.min_length = min_length
        self.taste_concentration = taste_concentration
        self.num_favourites = num_favourites
        self.artist_share = artist_share
        self.explore_share = explore_share
        self.stray_share = stray_share
        self.popularity_exponent = popularity_exponent
        self.session_length = session_length
        self.mean_replays = mean_replays
        self.num_friends = num_friends
        self.homophily = homophily
        self.seed = seed

    @property
    def name(self) -> str:
        return "synthetic_music"

    @cached_property
    def listening(self) -> Listening:
        """The true preferences behind the data, drawn from the seed."""
        generator = np.random.default_rng([self.seed, 0])
        main_genre = generator.permutation(np.arange(self.num_artists) % self.num_genres)
        extra = self.num_items - self.num_artists
        artist = np.append(np.arange(self.num_artists), generator.integers(self.num_artists, size=extra))
        stray = (generator.random(self.num_items) < self.stray_share) & (np.arange(self.num_items) >= self.num_artists)
        genre = np.where(stray, generator.integers(self.num_genres, size=self.num_items), main_genre[artist])
        slots = generator.permutation(self.num_items)  # so that an item's index says nothing of its artist
        weights = (generator.permutation(self.num_items) + 1.0) ** -self.popularity_exponent
        taste = generator.dirichlet(np.full(self.num_genres, self.taste_concentration), size=self.num_users)
        chances = taste[:, main_genre] + 1e-9  # whoever likes one genre only may need artists beyond it
        explore = self.explore_share * generator.uniform(_LEAST_HABIT, _MOST_HABIT, size=self.num_users)
        return Listening(
            artist=artist[slots],
            genre=genre[slots],
            popularity=weights / weights.sum(),
            taste=taste,
            favourites=_draw_without_replacement(chances, self.num_favourites, generator),
            explore=explore,
            artist_share=self.artist_share,
        )

    def load(self) -> SourceData:
        """Draws the interactions, the item table and the relations."""
        songs = self._draw_songs()
        table = self._item_table()
        log = InteractionLog(
            users=songs.row_of_value,
            items=songs.values,
            user_ids=np.arange(1, self.num_users + 1),
            item_ids=np.arange(1, self.num_items + 1),
            timestamps=self._draw_times(songs),
            extras={PLAY_COUNT: self._draw_play_counts(songs)},
            item_table=table,
            user_table=pl.DataFrame({USER_ID: np.arange(1, self.num_users + 1)}),
        )
        relations = {
            "performed_by": relation_of_column(table[ARTIST], source=ITEM, target=ARTIST),
            "has_genre": relation_of_column(table[GENRE], source=ITEM, target=GENRE),
        }
        if self.num_friends:
            relations["friend_of"] = self._draw_friends()
        counts = {"users": log.num_users, "items": log.num_items, "interactions": len(log)}
        report = DataReport(counts, ["Invented data: what the best ranking reaches on the held-out songs is known."])
        return SourceData(log, report, relations=relations)

    def ceiling(
        self, log: InteractionLog, split: SplitResult, k_values: tuple[int, ...] = (1, 5, 10, 20)
    ) -> dict[str, float]:
        """The recall@k of an oracle who knows p_u, on the held-out songs themselves: mean over users.

        The oracle ranks the songs that a user does not know by p_u. No ranking has a larger expected recall, whether
        the latest or random songs are held out: swapping a song of a set that was drawn one by one without replacement
        for a likelier one makes the set likelier. The value is no expectation but the oracle's recall on these very
        items. Its noise falls with the root of the number of users, so a model as good as the oracle may exceed it by
        chance. Seen songs are left out of the oracle's list, which is best with and without ``filter_seen``.
        """
        del log
        found = {}
        for part, targets, history in (
            (VAL, split.val, split.train),
            (TEST, split.test, _joined(split.train, split.val)),
        ):
            users = np.flatnonzero((targets.lengths > 0) & (history.lengths > 0))
            if len(users):
                hits = np.concatenate(
                    [self._hits(users[rows], history, targets, max(k_values)) for rows in _chunks(len(users))]
                )
                shares = hits.cumsum(axis=1) / targets.lengths[users, None]  # recall@1, recall@2 ... of each user
                found.update({f"{part}/recall@{k}": float(shares[:, :k][:, -1].mean()) for k in k_values})
        return found

    def _hits(self, users: np.ndarray, history: Ragged, targets: Ragged, count: int) -> np.ndarray:
        """(B, count) which places of the oracle's list hold a held-out song; fewer columns in a smaller catalogue."""
        known, wanted = history.take(users), targets.take(users)
        chances = self.listening.probabilities(users)
        chances[known.row_of_value, known.values] = -1.0
        is_target = np.zeros(chances.shape, dtype=bool)
        is_target[wanted.row_of_value, wanted.values] = True
        return np.take_along_axis(is_target, np.argsort(-chances, axis=1, kind="stable")[:, :count], axis=1)

    def _draw_songs(self) -> Ragged:
        """Every user's songs in the order in which they are discovered."""
        generator = np.random.default_rng([self.seed, 1])
        further = self.mean_length - self.min_length
        lengths = self.min_length + generator.negative_binomial(
            _SPREAD, _SPREAD / (_SPREAD + further), size=self.num_users
        )
        lengths = np.minimum(lengths, self.num_items)
        drawn = []
        for users in _chunks(self.num_users):
            chances = self.listening.probabilities(users)
            songs = _draw_without_replacement(chances, int(lengths[users].max()), generator)
            drawn.append(songs[np.arange(songs.shape[1]) < lengths[users, None]])
        return Ragged.from_lengths(np.concatenate(drawn), lengths)

    def _draw_times(self, songs: Ragged) -> np.ndarray:
        """(M,) Unix seconds of first plays: minutes apart within a session, days between sessions."""
        generator = np.random.default_rng([self.seed, 2])
        habit = generator.uniform(_LEAST_HABIT, _MOST_HABIT, size=self.num_users)
        songs_per_session = 1 + (self.session_length - 1) * habit
        users = songs.row_of_value
        begins_session = generator.random(len(users)) * songs_per_session[users] < 1
        pause = _HOUR + generator.exponential(4 * _DAY, size=len(users)).astype(np.int64)
        gaps = np.where(begins_session, pause, generator.integers(150, 600, size=len(users)))
        first = generator.integers(0, 300 * _DAY, size=self.num_users)[users]
        total = np.cumsum(gaps)
        return _START + first + total - total[songs.offsets[users]]

    def _draw_play_counts(self, songs: Ragged) -> np.ndarray:
        """(M,) 1 and the replays, whose expectation is proportional to p_u among the user's songs."""
        generator = np.random.default_rng([self.seed, 3])
        fit = []
        for users in _chunks(self.num_users):
            own = songs.take(users)
            chances = self.listening.probabilities(users)[own.row_of_value, own.values]
            means = np.bincount(own.row_of_value, weights=chances) / own.lengths
            fit.append(chances / means[own.row_of_value])
        return 1 + generator.poisson(self.mean_replays * np.concatenate(fit))

    def _draw_friends(self) -> Relation:
        """Every user picks ``num_friends`` others; who is picked is a friend too, so edges lie in both directions.

        Users are similar (0 to 1) as far as their listening falls to the same artists: the sum over artists of the
        root of the product of both shares (Bhattacharyya, 1943).
        """
        generator = np.random.default_rng([self.seed, 4])
        roots = np.sqrt(self.listening.artist_shares)
        picks = []
        for users in _chunks(self.num_users):
            weights = (roots[users] @ roots.T) ** self.homophily
            weights[np.arange(len(users)), users] = 0.0  # nobody is a friend of oneself
            picks.append(_draw_without_replacement(weights, self.num_friends, generator))
        chosen = np.concatenate(picks).ravel()
        choosing = np.repeat(np.arange(self.num_users), self.num_friends)
        sources, targets = np.append(choosing, chosen), np.append(chosen, choosing)
        sources, targets = np.divmod(np.unique(sources * self.num_users + targets), self.num_users)
        return Relation(USER, USER, sources, targets, np.ones(len(sources), dtype=np.float32))

    def _item_table(self) -> pl.DataFrame:
        generator = np.random.default_rng([self.seed, 5])
        titles = _names(_TITLE_WORDS, self.num_items, generator)
        names = _names(_ARTIST_WORDS, self.num_artists, generator)
        artists = [names[artist] for artist in self.listening.artist.tolist()]
        genres = [_numbered(GENRES, genre) for genre in self.listening.genre.tolist()]
        texts = [f"{title}. {artist}. {genre}" for title, artist, genre in zip(titles, artists, genres, strict=True)]
        ids = np.arange(1, self.num_items + 1)
        return pl.DataFrame({ITEM_ID: ids, TITLE: titles, ARTIST: artists, GENRE: genres, TEXT: texts})


def _draw_without_replacement(weights: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """(rows, count) columns drawn one after the other by ``weights`` (rows, columns), renormalised over those left.

    Exponential times of these rates arrive in just this order (Efraimidis & Spirakis, 2006).
    """
    with np.errstate(divide="ignore"):
        arrival = generator.exponential(size=weights.shape) / weights
    return np.argsort(arrival, axis=1, kind="stable")[:, :count]


def _names(words: tuple[tuple[str, ...], tuple[str, ...]], count: int, generator: np.random.Generator) -> list[str]:
    """Distinct names of two words in random order."""
    pairs = [f"{first} {second}" for first in words[0] for second in words[1]]
    shuffled = tuple(pairs[place] for place in generator.permutation(len(pairs)))
    return [_numbered(shuffled, place) for place in range(count)]


def _numbered(names: tuple[str, ...], index: int) -> str:
    """The name of this index; where names run out they begin again with a number."""
    turn, place = divmod(index, len(names))
    return names[place] + (f" {turn + 1}" if turn else "")


def _check_sizes(num_items: int, num_artists: int, num_genres: int, num_favourites: int) -> None:
    if not num_genres <= num_artists <= num_items:
        raise GenrecError(
            f"data.source.num_genres={num_genres}, num_artists={num_artists} and num_items={num_items}: every genre "
            "needs an artist and every artist a song, so num_genres <= num_artists <= num_items."
        )
    if num_favourites > num_artists:
        raise GenrecError(
            f"data.source.num_favourites={num_favourites} must not be above num_artists={num_artists}: lower it."
        )


def _check_users(num_users: int, num_items: int, mean_length: float, min_length: int, num_friends: int) -> None:
    if not min_length <= mean_length <= num_items:
        raise GenrecError(
            f"data.source.mean_length={mean_length} must lie between min_length={min_length} and "
            f"num_items={num_items}: it counts the distinct songs of a user. Change one of the three."
        )
    if num_friends >= num_users:
        raise GenrecError(
            f"data.source.num_friends={num_friends} must be below num_users={num_users}: lower it, 0 for no friends."
        )


def _joined(train: Ragged, val: Ragged) -> Ragged:
    order = np.argsort(np.concatenate([train.row_of_value, val.row_of_value]), kind="stable")
    return Ragged.from_lengths(np.concatenate([train.values, val.values])[order], train.lengths + val.lengths)


def _chunks(count: int, size: int = 1024) -> list[np.ndarray]:
    rows = np.arange(count)
    return [rows[begin : begin + size] for begin in range(0, count, size)]
