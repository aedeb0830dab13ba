"""The client's side of a round: one verb, typed steps, secrets in memory only.

The table in ``_step`` is the protocol: which message is answered in which state. Everything else is refused, and a
session that refused or failed once is spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import urandom

import msgspec

from protocols import shamir
from protocols.aggregation.marks import marked
from protocols.aggregation.messages import (
    Advertised,
    Complaint,
    ConsistencyRequest,
    Dealt,
    Envelope,
    Extract,
    Header,
    InputRequest,
    KeysRequest,
    Opened,
    SharePair,
    SharesRequest,
    UnmaskRequest,
    envelope,
    key_list_digest,
    key_list_entry,
    membership_digest,
    survivors_statement,
)
from protocols.aggregation.secrets import commitment, pair_mask, self_mask_key, share_key
from protocols.aggregation.session import Step, Terms
from protocols.aggregation.states import (
    Advertising,
    Cohort,
    Consenting,
    Contribution,
    Masked,
    Open,
    Ready,
    Sharing,
    Spent,
    State,
)
from protocols.aggregation.verify import check_consents, read
from protocols.base import ClientId, Random
from protocols.encoding import Encoded, Encoding
from protocols.errors import ConfigurationError, Forged, Inconsistent, MalformedMessage, SessionSpent
from protocols.graph import Graph
from protocols.masking import Mask, Work, apply_masks
from protocols.primitives import KEY_BYTES, AgreementKey, Identity, equal, open_sealed, seal
from protocols.wire import Message, decode, encode, kind

Request = KeysRequest | SharesRequest | InputRequest | ConsistencyRequest | UnmaskRequest
_REQUESTS: dict[int, type[Request]] = {
    request.KIND: request for request in (KeysRequest, SharesRequest, InputRequest, ConsistencyRequest, UnmaskRequest)
}


class AggregationClient:
    """One client in one session.

    **Guarantee** (with masks; assuming X25519 is a hard Diffie-Hellman group, HKDF and AES are pseudorandom, and at
    most n_C colluding clients): the server learns no more of this client's update than the sum over the survivor set
    that at least t clients signed. Without masks: whoever can decode the encoding reads the update.
    """

    def __init__(
        self,
        name: ClientId,
        identity: Identity,
        terms: Terms,
        encoding: Encoding,
        contribution: Contribution,
        random: Random = urandom,
        work: Work = Work(),  # noqa: B008
    ) -> None:
        if terms.roster.keys.get(name) != identity.public:
            raise ConfigurationError(f"{name} is not on the roster with this identity")
        if encoding.layout != terms.layout:
            raise ConfigurationError("the encoding is not the one in the session's terms")
        self._name = name
        self._identity = identity
        self._terms = terms
        self._encoding = encoding
        self._contribution = contribution
        self._random = random
        self._work = work
        self._state: State = Ready()

    @property
    def spent(self) -> bool:
        """Whether it has said its last word: it answers nothing any more."""
        return isinstance(self._state, Spent)

    def handle(self, request: bytes) -> bytes:
        """Answer one request. Raises ``ProtocolError``, or what the contribution's update raised; then it is spent."""
        state, self._state = self._state, Spent()
        next_state, reply = self._step(state, _request(request))
        self._state = next_state
        return encode(reply)

    def _step(self, state: State, message: Message) -> tuple[State, Envelope]:
        match state, message:
            case Ready(), KeysRequest():
                return self._advertise()
            case Advertising(), SharesRequest():
                return self._share(state, message)
            case Sharing(), InputRequest():
                return self._mask(state, message)
            case Open(), InputRequest(shared=b"", dealt=()):
                return self._contribute_unmasked()
            case Masked(), ConsistencyRequest():
                return self._consent(state, message)
            case Consenting(), UnmaskRequest():
                return self._unmask(state, message)
            case _:
                raise SessionSpent(f"no {type(message).__name__} is answered after {type(state).__name__}")

    def _advertise(self) -> tuple[State, Envelope]:
        if not self._terms.masked:
            return Open(), self._envelope(
                Step.KEYS, b"", [msgspec.msgpack.encode(Advertised(b"", b"", self._contribution.witness))]
            )
        mask, share = AgreementKey.generate(self._random), AgreementKey.generate(self._random)
        body = Advertised(mask.public, share.public, self._contribution.witness)
        own = self._envelope(Step.KEYS, b"", [msgspec.msgpack.encode(body)])
        return Advertising(mask, share, own), own

    def _share(self, state: Advertising, request: SharesRequest) -> tuple[State, Envelope]:
        cohort = self._accept(state, request)
        self._contribution.admit(cohort.graph.members)
        self._contribution.witnessed(
            {name: shown.witness for name, shown in cohort.advertised.items() if name != self._name}
        )
        holders, threshold = cohort.graph.holders(self._name), cohort.graph.threshold
        points = [self._terms.roster.points[name] for name in holders]
        self_seed = self._random(KEY_BYTES)
        seeds = shamir.split(self_seed, threshold, points, self._random)
        keys = shamir.split(state.mask.secret, threshold, points, self._random)
        pairs = {name: SharePair(seeds[x], keys[x]) for name, x in zip(holders, points, strict=True)}
        parts = [commitment(self_seed)]
        parts += [self._deal(state.share, cohort, peer, pairs[peer]) for peer in cohort.graph.neighbours(self._name)]
        kept = {self._name: pairs[self._name]} if self._name in pairs else {}
        sharing = Sharing(cohort, state.mask, state.share, self_seed, kept)
        return sharing, self._envelope(Step.SHARES, cohort.keys, parts)

    def _accept(self, state: Advertising, request: SharesRequest) -> Cohort:
        """Check the key list: members of the roster, in order, as many as the rules want, this client among them as it
        spoke; of the neighbours that follow, keys that they signed, in this session, all distinct.

        The entries of others are not checked: whoever is shown a false neighbour drops out, as does any client whose
        neighbours see another list.
        """
        graph, keys = self._graph(request)
        advertised = {self._name: read(state.own.parts, Advertised)}
        entries = {self._name: key_list_entry(state.own.signed)}
        for listed in request.advertised:
            sender = listed.signed.open(self._terms.roster, self._terms.session, Step.KEYS).sender
            listed.open(self._terms.roster, self._terms.session, Step.KEYS, sender)
            advertised[sender], entries[sender] = read(listed.parts, Advertised), key_list_entry(listed.signed)
        near = graph.neighbours(self._name)
        if tuple(advertised) != (self._name, *near) or len(request.advertised) != len(near):
            raise Inconsistent("the keys shown are not those of this client's neighbours, in order")
        for place, name in enumerate(graph.members):
            if name in entries and request.entries[place * KEY_BYTES : (place + 1) * KEY_BYTES] != entries[name]:
                raise Inconsistent(f"the key list has other keys of {name} than {name} signed")
        distinct = {key for member in advertised.values() for key in (member.mask_key, member.share_key)}
        if len(distinct) != 2 * len(advertised):
            raise Inconsistent("the key list has a key twice")
        return Cohort(keys, graph, advertised)

    def _graph(self, request: SharesRequest) -> tuple[Graph, bytes]:
        members = request.members
        if list(members) != sorted(set(members)) or not self._terms.roster.keys.keys() >= set(members):
            raise Inconsistent("the key list is unsorted, has a client twice or one who is not on the roster")
        if self._name not in members or len(request.entries) != KEY_BYTES * len(members):
            raise Inconsistent("the key list lacks this client or has not one entry for each member")
        keys = key_list_digest(members, request.entries)
        try:
            return self._terms.graph(members, keys), keys
        except ConfigurationError as error:
            raise Inconsistent(str(error)) from error

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        secret = key.agree(cohort.advertised[receiver].share_key)
        sealing = share_key(self._terms, secret, cohort.keys, self._name, receiver)
        sealed = seal(sealing, msgspec.msgpack.encode(pair), cohort.keys)
        return msgspec.msgpack.encode(Dealt(sealed, commitment(pair.seed), commitment(pair.key)))

    def _mask(self, state: Sharing, request: InputRequest) -> tuple[State, Envelope]:
        held, wrong = self._receive_all(state, request)
        # Named in the header: an input whose sender was shown other sharers than the rest would spoil the sum.
        members = membership_digest(state.cohort.keys, request.shared)
        if wrong:
            complaint = msgspec.msgpack.encode(Complaint(tuple(wrong)))
            return Spent(), self._envelope(Step.COMPLAINT, members, [complaint])
        self._contribution.admit(marked(state.cohort.graph.members, request.shared))
        # Masks first: an unusable key in the list is refused before the update is asked for, which may cost privacy.
        masks, layout = self._masks(state, held), self._terms.layout
        encoded = self._encode()
        apply_masks(encoded.vector, layout.ring, masks, self._work)
        parts = [layout.ring.pack(encoded.vector)]
        masked = Masked(state.cohort, request.shared, members, {**state.own, **held})
        return masked, self._envelope(Step.INPUT, members, parts, encoded.seed)

    def _receive_all(self, state: Sharing, request: InputRequest) -> tuple[dict[ClientId, SharePair], list[ClientId]]:
        """What the neighbours in U2 dealt to this client, and those whose signed, unchanged part is no share.

        Raises if U2 is too small or anything is there that its neighbours in U2 did not sign for this client.
        """
        graph = state.cohort.graph
        shared = set(marked(graph.members, request.shared))
        dealers = [name for name in graph.neighbours(self._name) if name in shared]
        if self._name not in shared or len(shared) < graph.least or len(dealers) + len(state.own) < graph.threshold:
            raise Inconsistent(f"{len(shared)} clients dealt shares, {graph.least} are needed")
        if len(request.dealt) != len(dealers):
            raise Inconsistent(f"shares of {len(request.dealt)} neighbours where {len(dealers)} dealt")
        held, wrong = {}, []
        for dealer, given in zip(dealers, request.dealt, strict=True):
            # A share that opens came from the dealer: only the two of them can make the key. So the signature matters
            # where it does not open, to tell a dealer's fault from the server's.
            try:
                held[dealer] = self._receive(state, dealer, given.part)
            except (Forged, MalformedMessage):
                self._check_dealt(state.cohort, dealer, given)
                wrong.append(dealer)
        return held, wrong

    def _check_dealt(self, cohort: Cohort, dealer: ClientId, given: Extract) -> None:
        """Raise unless ``dealer`` signed exactly this part, for this client, in this key list."""
        header = given.open(self._terms.roster, self._terms.session, Step.SHARES)
        place = (cohort.graph.place(dealer, self._name), 1 + cohort.graph.degree)
        if header.sender != dealer or header.keys != cohort.keys or (given.index, given.parts) != place:
            raise Inconsistent(f"the shares shown as those of {dealer} are not for this client in this key list")

    def _receive(self, state: Sharing, dealer: ClientId, part: bytes) -> SharePair:
        """Open what one dealer dealt. Raises ``Forged`` or ``MalformedMessage`` for what is not a share of its."""
        dealt = read([part], Dealt)
        secret = state.share.agree(state.cohort.advertised[dealer].share_key)
        key = share_key(self._terms, secret, state.cohort.keys, dealer, self._name)
        pair = read([open_sealed(key, dealt.sealed, state.cohort.keys)], SharePair)
        if not (
            equal(commitment(pair.seed), dealt.seed_commitment) and equal(commitment(pair.key), dealt.key_commitment)
        ):
            raise Forged(f"{dealer} dealt a share that is not the one it committed to")
        return pair

    def _masks(self, state: Sharing, held: Mapping[ClientId, SharePair]) -> list[Mask]:
        own = self_mask_key(self._terms, self._name, state.self_seed)
        pairwise = [
            pair_mask(self._terms, state.mask, self._name, peer, state.cohort.advertised[peer].mask_key)
            for peer in held
        ]
        return [Mask(own, 1), *pairwise]

    def _contribute_unmasked(self) -> tuple[State, Envelope]:
        encoded = self._encode()
        return Spent(), self._envelope(Step.INPUT, b"", [self._terms.layout.ring.pack(encoded.vector)], encoded.seed)

    def _encode(self) -> Encoded:
        mine, session = self._contribution, self._terms.session
        return self._encoding.encode(mine.update(), mine.weight, session, self._name, self._random, mine.noise())

    def _consent(self, state: Masked, request: ConsistencyRequest) -> tuple[State, Envelope]:
        graph = state.cohort.graph
        survivors = set(marked(graph.members, request.survivors))
        if self._name not in survivors or not survivors <= set(marked(graph.members, state.shared)):
            raise Inconsistent("the survivor set lacks this client or names clients who dealt no shares")
        if len(survivors) < graph.least:
            raise Inconsistent(f"a survivor set of {len(survivors)} is below the {graph.least} that a sum needs")
        self._contribution.admit(survivors)
        consenting = Consenting(state.cohort, state.shared, state.members, state.held, request.survivors)
        return consenting, self._envelope(Step.CONSISTENCY, state.members, [self._statement(consenting)])

    def _statement(self, state: Consenting) -> bytes:
        cohort = state.cohort
        return survivors_statement(
            self._terms.session, cohort.keys, cohort.graph.members, state.shared, state.survivors
        )

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[State, Envelope]:
        graph = state.cohort.graph
        survivors = set(marked(graph.members, state.survivors))
        peers = survivors.intersection(graph.holders(self._name))
        check_consents(self._terms, request.consents, self._statement(state), peers, graph.threshold)
        self._contribution.opening(survivors)
        # Exactly one of the two shares of each peer ever leaves: with both, the server could unmask a single update.
        shares = [pair.seed if peer in survivors else pair.key for peer, pair in sorted(state.held.items())]
        return Spent(), self._envelope(Step.UNMASK, state.members, [msgspec.msgpack.encode(Opened(tuple(shares)))])

    def _envelope(self, step: Step, keys: bytes, parts: Sequence[bytes], seed: bytes = b"") -> Envelope:
        return envelope(
            self._identity, Header(self._terms.session, step, self._name, keys, seed, b""), parts, self._work.threads
        )


def _request(data: bytes) -> Request:
    expected = _REQUESTS.get(kind(data))
    if expected is None:
        raise MalformedMessage(f"a message of kind {kind(data)} is no request of a round")
    return decode(data, expected)
