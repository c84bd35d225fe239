"""Values of each kind of personal data, of many countries and in many forms, drawn by a seed."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from hashlib import sha256
from random import Random

from stdnum.eu import vat

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def digits(draw: Random, count: int) -> str:
    return "".join(draw.choices("0123456789", k=count))


def shaped(draw: Random, form: str) -> str:
    """Returns ``form`` with a digit for each #, one above 1 for each $, a letter for each @."""
    kinds = {"#": "0123456789", "$": "23456789", "@": "ABCDEFGHJKLMNPRTUVWXYZ"}
    return "".join(draw.choice(kinds[letter]) if letter in kinds else letter for letter in form)


def luhn_digit(number: str) -> str:
    doubled = [int(digit) * (2 - at % 2) for at, digit in enumerate(reversed(number))]
    return str(-sum(value // 10 + value % 10 for value in doubled) % 10)


def grouped(text: str, sizes: tuple[int, ...], gap: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return gap.join(part for part in parts if part)


ISSUERS = (
    ("4", 16),
    ("51", 16),
    ("55", 16),
    ("2221", 16),
    ("6011", 16),
    ("34", 15),
    ("37", 15),
    ("3530", 16),
)


def card(draw: Random) -> str:
    prefix, length = draw.choice(ISSUERS)
    number = prefix + digits(draw, length - len(prefix) - 1)
    number += luhn_digit(number)
    sizes = (4, 6, 5) if length == 15 else (4, 4, 4, 4)
    return draw.choice((number, grouped(number, sizes, " "), grouped(number, sizes, "-")))


ACCOUNTS = {
    "AT": "################", "BE": "############", "CH": "#################",
    "CZ": "####################", "DE": "##################", "DK": "##############",
    "ES": "####################", "FI": "##############", "FR": "#######################",
    "GB": "@@@@##############", "IE": "@@@@##############", "IT": "@######################",
    "NL": "@@@@##########", "NO": "###########", "PL": "########################",
    "PT": "#####################", "SE": "####################",
}  # fmt: skip


def iban(draw: Random) -> str:
    country = draw.choice(sorted(ACCOUNTS))
    account = shaped(draw, ACCOUNTS[country])
    value = "".join(str(int(letter, 36)) for letter in f"{account}{country}00")
    number = f"{country}{98 - int(value) % 97:02}{account}"
    return draw.choice((number, grouped(number, (4,) * 9, " ")))


def base58(raw: bytes) -> str:
    raw += sha256(sha256(raw).digest()).digest()[:4]
    value, text = int.from_bytes(raw, "big"), ""
    while value:
        value, rest = divmod(value, 58)
        text = BASE58[rest] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def bech32(draw: Random) -> str:
    data = [0, *(draw.randrange(32) for _ in range(32))]
    values = [3, 3, 0, 2, 3, *data, 0, 0, 0, 0, 0, 0]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for at, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= term if top >> at & 1 else 0
    check ^= 1
    data += [check >> 5 * (5 - at) & 31 for at in range(6)]
    return "bc1" + "".join(BECH32[value] for value in data)


def wallet(draw: Random) -> str:
    version = draw.choice((b"\0", b"\5"))
    return draw.choice(
        (base58(version + draw.randbytes(20)), bech32(draw), "0x" + draw.randbytes(20).hex())
    )


LOCALS = (
    "ada", "j.miller", "kim_park", "sales.team", "o-neil", "info", "support", "marie.curie42",
    "x1", "rné", "first.last", "no_reply", "dev+alerts", "ana+news", "billing-eu", "t.nguyen",
    "chef", "root", "hr",
)  # fmt: skip
DOMAINS = (
    "example.com", "mail.example.org", "uni-bonn.de", "acme.co.uk", "example.io", "startup.ai",
    "bücher.de", "corp.internal", "a-b.fr", "example.com.br", "dept.gov.au", "firma.at",
    "example.museum", "sub.a.b.net",
)  # fmt: skip


def mail(draw: Random) -> str:
    local = draw.choice(LOCALS) + draw.choice(("", "", "", "7", "2024", "+tag"))
    whole = f"{local}@{draw.choice(DOMAINS)}"
    return whole.upper() if draw.random() < 0.05 else whole


def address(draw: Random) -> str:
    if draw.random() < 0.55:
        first = draw.choice([part for part in range(1, 224) if part != 127])
        return ".".join(map(str, (first, *(draw.randint(0, 254) for _ in range(3)))))
    some = [draw.randrange(1, 65536) for _ in range(3)]
    groups = [0x2001, 0xDB8, some[0], 0, 0, some[1], 0, some[2]]
    if draw.random() < 0.4:
        groups = [0x2A00 + draw.randrange(256), *(draw.randrange(4096, 65536) for _ in range(7))]
    whole = ipaddress.IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups))
    return draw.choice((str(whole), str(whole).upper(), whole.exploded))


def mac(draw: Random) -> str:
    raw = (b"\0" + draw.randbytes(5)).hex()
    raw = raw[:10] + draw.choice(("a7", "3f", "e1", "0c"))
    form = draw.choice(((2, ":"), (2, "-"), (2, ":"), (4, ".")))
    text = grouped(raw, (form[0],) * 6, form[1])
    return draw.choice((text, text.upper()))


PASSPORTS = (
    "#########",
    "@########",
    "C0@@@##@#",
    "##@@#####",
    "@#######",
    "@@#######",
    "@@######",
    "@@@######",
)


def passport(draw: Random) -> str:
    return shaped(draw, draw.choice(PASSPORTS))


PHONES = (
    "+49 30 $######", "+49 171 #######", "+49 (0)89 $######", "030 $#######", "0171 $######",
    "089/$#######", "+4930$######", "($12) 555-01##", "$12-$34-####", "+1 $12 $23 ####",
    "+1-$12-$34-####", "1-800-$23-####", "$12.$34.####", "+44 20 7946 0###", "020 7946 0###",
    "07700 900###", "+44 7700 900###", "01 4$ ## ## ##", "+33 1 4$ ## ## ##", "06 $$ ## ## ##",
    "+33612######", "+34 612 ### ###", "+39 06 698# ####", "+31 6 2#######", "+41 44 668 18 ##",
    "044 668 18 ##", "+43 1 5$#####", "+91 98### #####", "+55 11 9$###-####", "+61 4## ### ###",
    "0412 ### ###", "+81 3-$###-####", "+46 8 5## ### ##", "+48 60# ### ###", "+65 9### ####",
    "0049 30 $######", "+353 86 ### ####", "+45 20 ## ## ##", "+47 40# ## ###",
    "+32 47# ## ## ##", "+27 82 ### ####", "+972 50-###-####",
)  # fmt: skip


def phone(draw: Random) -> str:
    return shaped(draw, draw.choice(PHONES))


def ssn(draw: Random) -> str:
    area = draw.choice([area for area in range(1, 900) if area != 666])
    return f"{area:03}-{draw.randint(1, 99):02}-{draw.randint(1, 9999):04}"


TAXED = {
    "AT": "ATU########", "BE": "BE0#########", "DE": "DE$########", "DK": "DK########",
    "ES": "ES@########", "FI": "FI########", "FR": "FR###########", "IT": "IT000########",
    "LU": "LU########", "NL": "NL#########B01", "PL": "PL##########", "PT": "PT5########",
    "SE": "SE##########01", "SI": "SI########",
}  # fmt: skip


def vat_number(draw: Random) -> str:
    country = draw.choice(sorted(TAXED))
    while not vat.is_valid(number := shaped(draw, TAXED[country])):
        pass
    return draw.choice((number, number, f"{number[:2]} {number[2:]}"))


MONTHS = "January February March April May June July August September October November December"


def birth(draw: Random) -> str:
    year, month, day = draw.randint(1935, 2009), draw.randint(1, 12), draw.randint(1, 28)
    name = MONTHS.split()[month - 1]
    forms = (
        f"{year}-{month:02}-{day:02}",
        f"{day:02}/{month:02}/{year}",
        f"{month:02}/{day:02}/{year}",
        f"{day}.{month}.{year}",
        f"{name} {day}, {year}",
        f"{day} {name} {year}",
        f"{day} {name[:3]} {year}",
        f"{day:02}-{month:02}-{year}",
        f"{month}/{day}/{year % 100:02}",
        f"{name[:3]} {day} {year}",
    )
    return draw.choice(forms)


VALUES: dict[str, Callable[[Random], str]] = {
    "CREDIT_CARD": card,
    "CRYPTO": wallet,
    "DATE_OF_BIRTH": birth,
    "EMAIL_ADDRESS": mail,
    "IBAN_CODE": iban,
    "IP_ADDRESS": address,
    "MAC_ADDRESS": mac,
    "PASSPORT": passport,
    "PHONE_NUMBER": phone,
    "US_SSN": ssn,
    "VAT_NUMBER": vat_number,
}
