"""The client's side of a round: one verb, typed steps, secrets in memory only.

The table in ``_step`` is the protocol: which message is answered in which state. Everything else is refused, and a
session that refused or failed once is spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import urandom

import msgspec

from protocols import shamir
from protocols.aggregation.messages import (
    Advertised,
    ConsistencyRequest,
    Dealt,
    Envelope,
    Header,
    InputRequest,
    KeysRequest,
    Opened,
    Relayed,
    SharePair,
    SharesRequest,
    UnmaskRequest,
    envelope,
    key_list_digest,
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
from protocols.graph import neighbours
from protocols.masking import Mask, Work, apply_masks
from protocols.primitives import KEY_BYTES, AgreementKey, Identity, equal, hashes, open_sealed, seal
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
            case Open(), InputRequest(dealt=()):
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
        points = self._terms.roster.points(cohort.members)
        self_seed = self._random(KEY_BYTES)
        seeds = shamir.split(self_seed, cohort.threshold, list(points.values()), self._random)
        keys = shamir.split(state.mask.secret, cohort.threshold, list(points.values()), self._random)
        pairs = {name: SharePair(seeds[x], keys[x]) for name, x in points.items()}
        parts = [commitment(self_seed)]
        parts += [
            self._deal(state.share, cohort, peer, pairs[peer]) for peer in neighbours(self._name, list(cohort.members))
        ]
        sharing = Sharing(cohort, state.mask, state.share, self_seed, pairs[self._name])
        return sharing, self._envelope(Step.SHARES, cohort.keys, parts)

    def _accept(self, state: Advertising, request: SharesRequest) -> Cohort:
        """Check the key list: all signed, in this session, sorted, distinct keys, own keys as sent, large enough."""
        members: dict[ClientId, Advertised] = {}
        for listed in request.advertised:
            header = listed.signed.open(self._terms.roster, self._terms.session, Step.KEYS)
            listed.open(self._terms.roster, self._terms.session, Step.KEYS, header.sender)
            members[header.sender] = read(listed.parts, Advertised)
        keys = [key for m in members.values() for key in (m.mask_key, m.share_key)]
        if list(members) != sorted(members) or len(members) != len(request.advertised) or len(set(keys)) != len(keys):
            raise Inconsistent("the key list is unsorted or names a client or a key twice")
        if state.own not in request.advertised:
            raise Inconsistent("the key list does not have this client's own keys")
        return Cohort(key_list_digest(request.advertised), members, *self._fewest(len(members)))

    def _fewest(self, cohort: int) -> tuple[int, int]:
        try:
            return self._terms.rules.threshold_for(cohort), self._terms.rules.least(cohort)
        except ConfigurationError as error:
            raise Inconsistent(str(error)) from error

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        sealing = share_key(
            self._terms, key.agree(cohort.members[receiver].share_key), cohort.keys, self._name, receiver
        )
        sealed = seal(sealing, msgspec.msgpack.encode(pair), cohort.keys)
        return msgspec.msgpack.encode(Dealt(sealed, commitment(pair.seed), commitment(pair.key)))

    def _mask(self, state: Sharing, request: InputRequest) -> tuple[State, Envelope]:
        held = {self._name: state.own}
        for relayed in request.dealt:
            dealer, pair = self._receive(state, relayed)
            if dealer in held:
                raise Inconsistent(f"shares of {dealer} came twice")
            held[dealer] = pair
        if len(held) < state.cohort.least:
            raise Inconsistent(f"{len(held)} clients dealt shares, {state.cohort.least} are needed")
        # Masks first: an unusable key in the list is refused before the update is asked for, which may cost privacy.
        masks, layout = self._masks(state, held), self._terms.layout
        encoded = self._encode()
        apply_masks(encoded.vector, layout.ring, masks, self._work)
        parts = [layout.ring.pack(encoded.vector)]
        return Masked(state.cohort, held), self._envelope(Step.INPUT, state.cohort.keys, parts, encoded.seed)

    def _receive(self, state: Sharing, relayed: Relayed) -> tuple[ClientId, SharePair]:
        """Check and open what one dealer dealt; a share that breaks its commitment is proof against the dealer."""
        header = relayed.signed.open(self._terms.roster, self._terms.session, Step.SHARES)
        dealer, cohort = header.sender, state.cohort
        if dealer not in cohort.members or dealer == self._name or header.keys != cohort.keys:
            raise Inconsistent(f"shares of {dealer}, who is not a peer in this key list")
        place = 1 + neighbours(dealer, list(cohort.members)).index(self._name)
        if len(header.parts) != len(cohort.members) or hashes([relayed.part])[0] != header.parts[place]:
            raise Forged(f"the relayed shares are not the ones that {dealer} signed for this client")
        dealt = read([relayed.part], Dealt)
        secret = state.share.agree(cohort.members[dealer].share_key)
        key = share_key(self._terms, secret, cohort.keys, dealer, self._name)
        pair = read([open_sealed(key, dealt.sealed, cohort.keys)], SharePair)
        if not (
            equal(commitment(pair.seed), dealt.seed_commitment) and equal(commitment(pair.key), dealt.key_commitment)
        ):
            raise Forged(f"{dealer} dealt a share that is not the one it committed to", blamed=dealer)
        return dealer, pair

    def _masks(self, state: Sharing, held: Mapping[ClientId, SharePair]) -> list[Mask]:
        own = self_mask_key(self._terms, self._name, state.self_seed)
        pairwise = [
            pair_mask(self._terms, state.mask, self._name, peer, state.cohort.members[peer].mask_key)
            for peer in neighbours(self._name, sorted(held))
        ]
        return [Mask(own, 1), *pairwise]

    def _contribute_unmasked(self) -> tuple[State, Envelope]:
        encoded = self._encode()
        return Spent(), self._envelope(Step.INPUT, b"", [self._terms.layout.ring.pack(encoded.vector)], encoded.seed)

    def _encode(self) -> Encoded:
        mine = self._contribution
        return self._encoding.encode(mine.update(), mine.weight, self._terms.session, self._name, self._random)

    def _consent(self, state: Masked, request: ConsistencyRequest) -> tuple[State, Envelope]:
        survivors, cohort = request.survivors, state.cohort
        if (
            list(survivors) != sorted(set(survivors))
            or self._name not in survivors
            or not set(survivors) <= set(state.held)
        ):
            raise Inconsistent("the survivor set is unsorted, lacks this client or names clients who dealt no shares")
        if len(survivors) < cohort.least:
            raise Inconsistent(f"a survivor set of {len(survivors)} is below the {cohort.least} that a sum needs")
        statement = self._statement(state, survivors)
        return Consenting(cohort, state.held, survivors), self._envelope(Step.CONSISTENCY, cohort.keys, [statement])

    def _statement(self, state: Masked | Consenting, survivors: Sequence[ClientId]) -> bytes:
        cohort = state.cohort
        return survivors_statement(
            self._terms.session, cohort.keys, list(cohort.members), sorted(state.held), survivors
        )

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[State, Envelope]:
        statement = self._statement(state, state.survivors)
        check_consents(self._terms, request.consents, statement, state.survivors, state.cohort.threshold)
        # Exactly one of the two shares of each peer ever leaves: with both, the server could unmask a single update.
        shares = [
            (peer, pair.seed if peer in state.survivors else pair.key) for peer, pair in sorted(state.held.items())
        ]
        return Spent(), self._envelope(Step.UNMASK, state.cohort.keys, [msgspec.msgpack.encode(Opened(tuple(shares)))])

    def _envelope(self, step: Step, keys: bytes, parts: Sequence[bytes], seed: bytes = b"") -> Envelope:
        return envelope(self._identity, Header(self._terms.session, step, self._name, keys, seed, ()), parts)


def _request(data: bytes) -> Request:
    expected = _REQUESTS.get(kind(data))
    if expected is None:
        raise MalformedMessage(f"a message of kind {kind(data)} is no request of a round")
    return decode(data, expected)
