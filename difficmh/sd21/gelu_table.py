"""The table of the exact GELU, as the places where it changes.

GELU(x) = max(x, 0) - g(|x|) with g(a) = a (1 - Phi(a)): one hump that starts and ends at zero. In units of 1/1024, for
arguments in the same unit, its rounded value rises from 0 to 174 and falls back to 0 in steps of one. The steps are
stored, not computed: a mathematical library may round another way, and an entropy model must be the same everywhere.
No value of g lies within 7e-5 of a tie.
"""

from __future__ import annotations

_RISES = """
2 4 6 8 10 12 14 16 18 20 22 24 26 28 30 32 34 37 39 41 43 45 47 49 52 54 56 58 60 62 65 67 69 71 74 76 78 80 83 85
87 90 92 94 97 99 101 104 106 109 111 113 116 118 121 123 126 128 131 133 136 138 141 143 146 149 151 154 156 159
162 164 167 170 172 175 178 181 183 186 189 192 195 198 200 203 206 209 212 215 218 221 224 227 230 233 237 240 243
246 249 252 256 259 262 266 269 272 276 279 283 286 290 293 297 301 304 308 312 316 320 323 327 331 335 339 343 348
352 356 360 365 369 374 378 383 387 392 397 402 407 412 417 422 428 433 439 444 450 456 462 468 475 481 488 495 502
509 517 524 532 541 550 559 569 579 590 602 615 629 645 664 687 720
"""
RISES = tuple(int(place) for place in _RISES.split())
"""The arguments where g is one more than at the argument before."""

_FALLS = """
822 858 884 906 924 941 957 972 986 999 1012 1024 1036 1047 1058 1069 1080 1090 1100 1110 1120 1130 1139 1149 1158
1167 1176 1185 1194 1203 1211 1220 1228 1237 1245 1254 1262 1270 1278 1286 1295 1303 1311 1319 1327 1335 1342 1350
1358 1366 1374 1382 1390 1397 1405 1413 1421 1428 1436 1444 1452 1459 1467 1475 1483 1491 1498 1506 1514 1522 1530
1537 1545 1553 1561 1569 1577 1585 1593 1601 1609 1617 1625 1633 1641 1649 1658 1666 1674 1682 1691 1699 1708 1716
1725 1733 1742 1751 1759 1768 1777 1786 1795 1804 1813 1822 1832 1841 1851 1860 1870 1879 1889 1899 1909 1919 1929
1940 1950 1960 1971 1982 1993 2004 2015 2026 2038 2050 2061 2073 2086 2098 2111 2123 2136 2150 2163 2177 2191 2206
2220 2235 2251 2266 2282 2299 2316 2333 2351 2370 2389 2409 2429 2450 2472 2495 2520 2545 2571 2599 2629 2660 2694
2730 2769 2812 2859 2912 2973 3044 3131 3243 3406 3732
"""
FALLS = tuple(int(place) for place in _FALLS.split())
"""The arguments where g is one less than at the argument before; from the last one on, it is 0."""


def gelu_deficit() -> list[int]:
    """g at the arguments 0, 1, 2, …, in units of 1/1024; the last value is 0 and holds for all larger arguments."""
    steps = [0] * (FALLS[-1] + 1)
    for place in RISES:
        steps[place] += 1
    for place in FALLS:
        steps[place] -= 1
    values, value = [], 0
    for step in steps:
        value += step
        values.append(value)
    return values
