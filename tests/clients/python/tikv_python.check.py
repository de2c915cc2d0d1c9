"""The package tikv-python 0.1.1 (pure Python, raw calls only) against a running cluster."""

import asyncio
import sys

import tikv

KEYS = 40
PREFIX = b"pure/"


def key(number):
    """Spread over all of the key space."""
    return bytes([number * 256 // KEYS]) + PREFIX + b"%d" % number


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def blocking(endpoints):
    everything = {"start": key(0), "end": b"\xff\xff"}
    with tikv.RawClient(endpoints) as client:
        client.delete_range(**everything)
        expect(client.get(key(1)), None, "an absent key")
        client.put(key(1), b"")
        expect(client.get(key(1)), b"", "an empty value")
        client.put_many({key(n): b"%d" % n for n in range(KEYS)})
        some = client.get_many([key(17), b"absent", key(0)])
        expect(some, {key(17): b"17", key(0): b"0"}, "some keys")
        found = [value for _, value in client.scan(**everything)]
        expect(found, [b"%d" % n for n in range(KEYS)], "all keys in order")
        found = [value for _, value in client.scan(**everything, limit=3, reverse=True)]
        expect(found, [b"39", b"38", b"37"], "the last keys, from the end")
        expect(list(client.scan_keys(key(3), key(5))), [key(3), key(4)], "keys between two others")

        sum_before = client.checksum(**everything)
        expect(sum_before.keys, KEYS, "counted keys")
        client.put(key(7), b"else")
        expect(client.checksum(**everything) == sum_before, False, "the same checksum")
        client.put(key(7), b"7")
        expect(client.checksum(**everything), sum_before, "the checksum")

        client.put(key(8), b"x", ttl=500)
        expect(400 < client.ttl(key(8)) <= 500, True, "the time left")
        expect(client.ttl(key(9)), None, "no time to live")
        client.delete(key(8))
        client.delete_many([key(9), key(10)])
        client.delete_range(key(11), key(20))
        expect(client.get_many([key(n) for n in range(8, 20)]), {}, "deleted keys")
        try:
            client.put(b"k" * 9000, b"")
        except tikv.ServerError as error:
            expect("8192" in str(error), True, f"the limit in {error}")
        else:
            raise AssertionError("a key of 9000 bytes was taken")
        client.delete_range(**everything)


def swaps(endpoints):
    with tikv.RawClient(endpoints, atomic=True) as client:
        client.delete(b"swapped")
        expect(client.compare_and_swap(b"swapped", b"x", b"a").swapped, False, "a swap from nothing")
        expect(client.compare_and_swap(b"swapped", None, b"a").swapped, True, "the first swap")
        result = client.compare_and_swap(b"swapped", None, b"b")
        expect((result.swapped, result.previous), (False, b"a"), "a swap that is too late")
        expect(client.compare_and_swap(b"swapped", b"a", b"b").swapped, True, "the second swap")
        expect(client.get(b"swapped"), b"b", "the value")
        client.delete(b"swapped")


async def concurrent(endpoints):
    async with tikv.AsyncRawClient(endpoints) as client:
        await asyncio.gather(*(client.put(key(n), b"%d" % n) for n in range(KEYS)))
        found = await asyncio.gather(*(client.get(key(n)) for n in range(KEYS)))
        expect(found, [b"%d" % n for n in range(KEYS)], "keys written at the same time")
        await client.delete_range(start=key(0), end=b"\xff\xff")


if __name__ == "__main__":
    addresses = sys.argv[1].split(",")
    blocking(addresses)
    swaps(addresses)
    asyncio.run(concurrent(addresses))
