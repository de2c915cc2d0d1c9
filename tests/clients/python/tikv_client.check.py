"""The package tikv-client 0.0.4 (the Rust client behind Python) against a running cluster."""

import asyncio
import sys
import warnings

from tikv_client import RawClient, TransactionClient

# It asks asyncio for the current loop in a way that later Pythons frown on.
warnings.simplefilter("ignore", DeprecationWarning)

KEYS = 40
TRANSFERS = 20


def key(number):
    """Spread over all of the key space."""
    return bytes([number * 256 // KEYS]) + b"python/%d" % number


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def raw(endpoints):
    client = RawClient.connect(endpoints)
    everything = (key(0), b"\xff\xff")
    client.delete_range(*everything)
    expect(client.get(key(1)), None, "an absent key")
    client.put(key(1), b"one")
    expect(client.get(key(1)), b"one", "a key")
    client.batch_put({key(n): b"%d" % n for n in range(KEYS)})
    some = dict(client.batch_get([key(n) for n in (0, 17, KEYS - 1)]))
    expect(some, {key(n): b"%d" % n for n in (0, 17, KEYS - 1)}, "some keys")
    found = [value for _, value in client.scan(*everything, limit=1000)]
    expect(found, [b"%d" % n for n in range(KEYS)], "all keys in order")
    found = client.scan_keys(key(3), key(6), limit=1000)
    expect(found, [key(3), key(4), key(5)], "keys between two others")
    client.delete(key(3))
    client.batch_delete([key(4), key(5)])
    expect(client.scan_keys(key(3), key(7), limit=10), [key(6)], "what is left")
    client.delete_range(*everything)
    expect(client.scan(*everything, limit=10), [], "nothing")


def transactions(endpoints):
    client = TransactionClient.connect(endpoints)
    accounts = [key(n) for n in range(0, KEYS, 4)]
    opening = client.begin(pessimistic=False)
    for account in accounts:
        opening.put(account, b"100")
    opening.commit()

    for number in range(TRANSFERS):
        source, target = accounts[number % 10], accounts[(number + 3) % 10]
        txn = client.begin(pessimistic=False)
        txn.put(source, b"%d" % (int(txn.get(source)) - 7))
        txn.put(target, b"%d" % (int(txn.get(target)) + 7))
        txn.commit()
    snapshot = client.snapshot(client.current_timestamp(), pessimistic=False)
    balances = [int(value) for _, value in snapshot.batch_get(accounts)]
    expect((len(balances), sum(balances)), (10, 1000), "the money")
    expect(snapshot.get(key(1)), None, "raw and transactional keys are two worlds")

    first, second = client.begin(pessimistic=False), client.begin(pessimistic=False)
    for txn in (first, second):
        txn.put(accounts[0], b"%d" % (int(txn.get(accounts[0])) + 1))
    first.commit()
    try:
        second.commit()
    except Exception as error:
        expect("conflict" in str(error).lower(), True, f"the reason {error}")
    else:
        raise AssertionError("an update was lost")

    txn = client.begin(pessimistic=False)
    found = [found for found, _ in txn.scan(key(0), b"\xff\xff", limit=100)]
    expect(found, accounts, "all accounts in order")
    for account in accounts:
        txn.delete(account)
    expect(txn.get(accounts[0]), None, "what it has deleted itself")
    txn.commit()
    txn = client.begin(pessimistic=False)
    expect(txn.key_exists(accounts[5]), False, "a deleted account")
    txn.put(accounts[5], b"never")
    txn.rollback()


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    raw(sys.argv[1].split(","))
    transactions(sys.argv[1].split(","))
