"""What looks like personal data and is none, drawn by a seed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random
from uuid import UUID

from tests.pii.values import card, digits, iban, luhn_digit, shaped


def bad_card(draw: Random) -> str:
    """Returns a card number whose last digit is wrong."""
    good = card(draw)
    return good[:-1] + str((int(good[-1]) + draw.randint(1, 9)) % 10)


def bad_iban(draw: Random) -> str:
    good = iban(draw).replace(" ", "")
    return good[:-1] + str((int(good[-1]) + 1) % 10) if good[-1].isdigit() else bad_iban(draw)


def moment(draw: Random) -> str:
    day = f"{draw.randint(2019, 2027)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
    clock = f"{draw.randint(0, 23):02}:{draw.randint(0, 59):02}:{draw.randint(0, 59):02}"
    return f"{day}T{clock}{draw.choice(('Z', '.123456Z', '+02:00', '.5-05:00'))}"


def isbn(draw: Random) -> str:
    body = f"978{digits(draw, 9)}"
    check = -sum(int(digit) * (1, 3)[at % 2] for at, digit in enumerate(body)) % 10
    whole = f"{body}{check}"
    return draw.choice((whole, f"978-{whole[3]}-{whole[4:6]}-{whole[6:12]}-{whole[12]}"))


def hexed(draw: Random) -> str:
    return draw.randbytes(draw.choice((8, 16, 20, 32, 64))).hex()


def integrity(draw: Random) -> str:
    return f"sha512-{base64.b64encode(draw.randbytes(64)).decode()}"


def picture(draw: Random) -> str:
    return f"data:image/png;base64,iVBORw0KGgo{base64.b64encode(draw.randbytes(90)).decode()}"


def called(draw: Random) -> str:
    letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
    return draw.choice(("chatcmpl-", "call_", "req_", "toolu_01", "resp_")) + "".join(
        draw.choices(letters, k=24)
    )


def version(draw: Random) -> str:
    one, two, three = draw.randint(0, 12), draw.randint(0, 40), draw.randint(0, 99)
    return draw.choice(
        (f"v{one}.{two}.{three}.{draw.randint(0, 255)}", f"{one}.{two}.{three}", f"v{one}.2.3.4567",
         f"version {one}.{two}.{three}.{draw.randint(1, 200)}")
    )  # fmt: skip


def epoch(draw: Random) -> str:
    return str(draw.randint(1_500_000_000_000, 1_900_000_000_000))


def order(draw: Random) -> str:
    return draw.choice(
        (shaped(draw, "$######"), shaped(draw, "PO-####-#####"), shaped(draw, "#######-##"))
    )


def path(draw: Random) -> str:
    return draw.choice(
        ("/usr/lib/python3.11/site-packages/yaml.py", "C:\\Users\\Public\\report_2024.xlsx",
         f"/var/log/app-{shaped(draw, '########')}.log", "../src/Grace/Hope.tsx",
         f"s3://bucket/{shaped(draw, '####/##/##')}/part-0000{shaped(draw, '#')}.parquet")
    )  # fmt: skip


def price(draw: Random) -> str:
    forms = (
        f"${draw.randint(1, 9)},{digits(draw, 3)}.{digits(draw, 2)}",
        f"{draw.randint(1, 999)}.99 EUR",
        f"0.{digits(draw, 16)}",
        f"{draw.randint(1, 99)}.{digits(draw, 7)}%",
        f"-{draw.random():.17f}",
    )
    return draw.choice(forms)


def tracking(draw: Random) -> str:
    number = digits(draw, 17)
    return f"1Z{number}{luhn_digit(number)}"


NEGATIVES: dict[str, Callable[[Random], str]] = {
    "bad_card": bad_card,
    "bad_iban": bad_iban,
    "called": called,
    "epoch": epoch,
    "hexed": hexed,
    "integrity": integrity,
    "isbn": isbn,
    "moment": moment,
    "order": order,
    "path": path,
    "picture": picture,
    "price": price,
    "tracking": tracking,
    "uuid": lambda draw: str(UUID(bytes=draw.randbytes(16), version=4)),
    "version": version,
}
