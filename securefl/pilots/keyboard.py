"""The next word, told by a small recurrent model that 209 roles of Shakespeare's plays train: a keyboard's task.

As in Hard et al. 2018, "Federated Learning for Mobile Keyboard Prediction", with roles for people: a client is a role,
its records are windows of twenty words, and most clients have few. The vocabulary is public: the words that five
published roles, who are no clients, say at least twice; so is how often they say them, which the model starts from.
Every other word is one id, as input, and is never predicted.

DP-SGD hides one window and not the role, who has many: to hide the role take ``unit = "client"`` (docs/llm.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from securefl.data import Dataset
from securefl.pilots import Pilot, Recipe, shakespeare
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import hazard

if TYPE_CHECKING:
    from torch import nn

# Declared training rows of each role; a test compares them with the split.
_ROWS: Final = """
first-citizen 33, all 5, second-citizen 12, menenius 174, marcius 67, messenger 35, first-senator 25, cominius 82,
sicinius 81, brutus 68, aufidius 84, second-senator 6, volumnia 98, virgilia 10, valeria 15, lartius 16,
first-soldier 3, lieutenant 5, first-officer 5, second-officer 8, officer 4, third-citizen 30, citizens 6, aedile 4,
roman 10, volsce 7, first-servingman 11, second-servingman 11, third-servingman 18, second-messenger 8,
first-conspirator 3, third-conspirator 4, first-lord 15, second-lord 3, clarence 79, brakenbury 14, hastings 55,
lady-anne 49, gentleman 6, rivers 21, grey 4, queen-elizabeth 103, buckingham 114, derby 19, queen-margaret 164,
dorset 7, catesby 19, first-murderer 19, second-murderer 21, king-edward-iv 122, boy 7, duchess-of-york 73,
archbishop-of-york 4, york 70, prince-edward 29, lord-mayor 6, cardinal 4, stanley 11, lord-stanley 6, ratcliff 9,
scrivener 5, king-richard-iii 134, page 10, tyrrel 12, fourth-messenger 4, christopher 3, richmond 45, oxford 13,
blunt 4, norfolk 5, john-of-gaunt 62, henry-bolingbroke 130, thomas-mowbray 43, duchess 19, lord-marshal 9,
duke-of-aumerle 29, green 10, bushy 12, duke-of-york 91, queen 38, northumberland 56, lord-ross 8, lord-willoughby
5, servant 32, bagot 8, henry-percy 15, lord-berkeley 4, captain 5, earl-of-salisbury 7, bishop-of-carlisle 20,
sir-stephen-scroop 13, gardener 17, lord-fitzwater 10, lord 53, duke-of-surrey 4, abbot 3, exton 8, groom 4, sampson
12, gregory 8, benvolio 50, tybalt 12, capulet 90, lady-capulet 38, montague 25, prince 26, romeo 193, paris 24,
nurse 94, juliet 180, mercutio 87, first-servant 10, second-servant 9, chorus 6, friar-laurence 113, peter 11,
first-musician 4, balthasar 9, apothecary 3, friar-john 5, first-watchman 9, second-watchman 3, third-watchman 5,
warwick 139, edward 45, richard 53, king-henry-vi 119, clifford 46, westmoreland 4, exeter 7, rutland 9, george 8,
son 8, father 9, first-keeper 7, second-keeper 6, lady-grey 14, king-lewis-xi 22, bona 4, somerset 14, post 9,
archidamus 8, camillo 87, polixenes 82, hermione 65, mamillius 7, antigonus 32, paulina 97, gaoler 4, emilia 7,
cleomenes 7, dion 8, mariner 4, shepherd 45, clown 67, time 12, autolycus 95, florizel 58, perdita 36, dorcas 4,
mopsa 7, first-gentleman 17, second-gentleman 9, third-gentleman 24, escalus 59, angelo 98, lucio 95,
mistress-overdone 10, pompey 55, claudio 34, provost 46, isabella 127, francisca 4, elbow 26, froth 3, mariana 21,
abhorson 7, barnardine 4, friar-peter 12, sly 23, first-huntsman 4, third-servant 5, lucentio 58, tranio 93,
baptista 53, katharina 74, hortensio 66, gremio 56, bianca 21, biondello 34, petruchio 188, grumio 61, curtis 8,
pedant 16, tailor 5, vincentio 15, widow 4, boatswain 10, alonso 6, antonio 16, gonzalo 30, sebastian 20, miranda
23, prospero 100, ariel 21, caliban 11, ferdinand 16, adrian 3, francisco 4
"""
CLIENTS: Final = tuple(one.split()[0] for one in _ROWS.split(","))
ROWS: Final = tuple(int(one.split()[1]) for one in _ROWS.split(","))
LENGTH: Final = 20  # words of a row: about two lines and a half
WORDS: Final = 2032  # ids; a test compares them with the vocabulary
START, UNKNOWN = 0, 1  # what stands before a speech, and behind the last; a word that is not in the vocabulary
_LEAST: Final = 2  # times that the published roles say a word of the vocabulary


def load(client: str) -> Dataset:
    """Training rows of one role: ids, and at each the next one where that is a word of the vocabulary."""
    return _rows(shakespeare.training(client))


def held_out(client: str) -> Dataset:
    """Rows of what a role says later, which is not trained on."""
    return _rows(shakespeare.held_out(client))


def test() -> Dataset:
    """The public test set: the roles' held-out rows, pooled."""
    parts = [held_out(client) for client in CLIENTS]
    return Dataset(np.concatenate([part.features for part in parts]), np.concatenate([part.labels for part in parts]))


def coverage() -> float:
    """The share of the test set's words that are in the vocabulary: no model can predict more of them."""
    said = [word for client in CLIENTS for line in shakespeare.held_out(client) for word in line if word]
    return sum(word in vocabulary() for word in said) / len(said)


def model() -> nn.Module:
    """Hard et al.'s CIFG, 670 units and 96 wide: 649,354 parameters, where their 10,000 words make 1.4 million.

    Its first guess at a word is how often the published roles say it.
    """
    from securefl.llm.cifg import CIFG

    counts = np.ones(WORDS)
    counts[list(vocabulary().values())] = [_counts()[word] for word in vocabulary()]
    return CIFG(WORDS, bias=np.log(counts / counts.sum()).astype(np.float32))


@cache
def vocabulary() -> dict[str, int]:
    """The id of each word, the most frequent first; without START and UNKNOWN."""
    kept = sorted((-count, word) for word, count in _counts().items() if count >= _LEAST)
    return {word: place for place, (_, word) in enumerate(kept, start=UNKNOWN + 1)}


@cache
def _counts() -> Counter[str]:
    return Counter(word for line in shakespeare.published() for word in line if word)


def _rows(lines: Sequence[shakespeare.Line]) -> Dataset:
    """All lines behind each other, in windows that begin with the last id of the one before."""
    from securefl.objective import IGNORED

    known = vocabulary() | {"": START}
    ids = [known.get(word, UNKNOWN) for line in lines for word in line]
    count = max(1, -(-(len(ids) - 1) // LENGTH))
    padded = np.full(count * LENGTH + 1, START, np.int64)
    padded[: len(ids)] = ids
    following = padded[1:]
    labels = np.where(following > UNKNOWN, following, IGNORED)
    return Dataset(padded[:-1].reshape(count, LENGTH), labels.reshape(count, LENGTH))


PILOT = Pilot(
    name="keyboard",
    title="The next word, predicted for 209 roles of Shakespeare's plays",
    clients=CLIENTS,
    classes=("start", "unknown", *(f"word {place}" for place in range(1, WORDS - 1))),
    load=load,
    test=test,
    model=model,
    private=Recipe(DPSGD(noise_multiplier=1.54, sampling_rate=1.0, steps=1, clip=1.0), LocalOptimizer(0.5), rounds=8),
    public=Recipe(SGD(sampling_rate=0.34, steps=3), LocalOptimizer(1.0), rounds=30),
    budget=Budget(epsilon=8.0, delta=1e-4),
    hazards=(
        hazard("tuning", "recipes tuned by trials on these training rows, not charged to the budget"),
        hazard("sample-counts", "row counts of the roles, used as weights and divisors, are treated as public"),
        hazard(
            "preprocessing",
            "which roles are clients follows from how many words they say; the vocabulary is from roles that are none",
        ),
    ),
    source=shakespeare.SOURCE,
    # rows / 193, to three digits
    weights=tuple(round(rows / max(ROWS), 3) for rows in ROWS),
    rows=ROWS,
    held_out=held_out,
)
