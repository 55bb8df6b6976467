"""Topics of ROS 2 without ROS: a DDS participant (Cyclone DDS) that speaks its wire protocol.

What another ROS 2 node expects of an endpoint, and cannot be seen from DDS alone:

    topic   /joint_states          -> rt/joint_states
    type    sensor_msgs/msg/X      -> sensor_msgs::msg::dds_::X_, final, CDR version 1
    hash    RIHS01_... of the type -> user data `typehash=RIHS01_...;`

Type information of XTypes is neither sent nor compared: other stacks describe the same types differently.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from robo_rlft.errors import ConfigError, MissingExtraError, unknown_name
from robo_rlft.rosmsg.cdr import Message, decode, encode
from robo_rlft.rosmsg.definition import Field, type_hash
from robo_rlft.rosmsg.known import KNOWN

try:
    from cyclonedds import core, domain, idl, pub, qos, sub, topic, util
    from cyclonedds.idl import annotations, types
    from cyclonedds.internal import InvalidSample
except ImportError as error:
    raise MissingExtraError("cyclonedds", "ros", "talking to ROS 2 nodes") from error

Received = Callable[[Message, int], None]
"""(message, source time in ns since 1970) -> None"""
_COMPATIBLE = "<Compatibility><IgnoreTypeInformation>1.15</IgnoreTypeInformation></Compatibility>"
_LOCAL = (
    "<General><Interfaces><NetworkInterface name='lo' multicast='true'/></Interfaces></General>"
    "<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>99</MaxAutoParticipantIndex>"
    "<Peers><Peer address='127.0.0.1'/></Peers></Discovery>"
)
_RANGES = {"LOCALHOST": _LOCAL, "SUBNET": "", "SYSTEM_DEFAULT": ""}


@dataclass(frozen=True)
class Quality:
    """Quality of service of an endpoint, in ROS 2's words.

    Attributes:
        reliable: lost messages are sent again; a reliable subscriber does not match a publisher that is not.
        latched: a late subscriber gets the last message (transient local).
        depth: messages that are kept.
    """

    reliable: bool = True
    latched: bool = False
    depth: int = 10


SENSOR = Quality(reliable=False, depth=5)
"""What rclpy calls `qos_profile_sensor_data`: as a subscriber it matches every publisher."""
COMMAND = Quality(depth=1)
"""Reliable, so that it reaches every subscriber; the newest only, since an old command is of no use."""
LATCHED = Quality(latched=True, depth=1)


class Publisher:
    """Sends messages of one type on one topic."""

    def __init__(self, writer: pub.DataWriter[Any], carrier: type[Any]) -> None:
        self._writer, self._carrier = writer, carrier

    def send(self, message: Any) -> None:
        """Send one message; anything with the fields of its type.

        Raises:
            DataError: a value does not fit its field.
        """
        self._writer.write(self._carrier.of(message))

    @property
    def matched(self) -> int:
        """Subscribers that were found."""
        return len(self._writer.get_matched_subscriptions())


class Participant:
    """One process's place on the bus. A context manager.

    Args:
        domain_id: ROS_DOMAIN_ID; None takes the environment's, else 0.
        discovery: ROS_AUTOMATIC_DISCOVERY_RANGE: `LOCALHOST` or `SUBNET`; None takes the environment's, else SUBNET.

    Raises:
        ConfigError: the domain or the range is none of ROS 2's.
    """

    def __init__(self, domain_id: int | None = None, discovery: str | None = None) -> None:
        self.domain_id = _domain_id(domain_id)
        _configure(discovery)
        self._participant = domain.DomainParticipant(self.domain_id)
        self._waiting = core.WaitSet(self._participant)
        self._readers: list[tuple[sub.DataReader[Any], core.ReadCondition, Received]] = []
        self._writers: list[pub.DataWriter[Any]] = []

    def publisher(self, name: str, kind: str, quality: Quality = COMMAND) -> Publisher:
        """Offer a topic.

        Args:
            name: absolute ROS 2 name, `/joint_states`.
            kind: full name of the message type.
            quality: what is offered.
        """
        carrier = _carrier(kind)
        writer = pub.DataWriter(self._participant, self._topic(name, carrier), _qos(quality, kind))
        self._writers.append(writer)
        return Publisher(writer, carrier)

    def subscribe(self, name: str, kind: str, received: Received, quality: Quality = SENSOR) -> None:
        """Have `received` called by `spin` with every message of a topic.

        Args:
            name: absolute ROS 2 name.
            kind: full name of the message type.
            received: gets the message and the sender's time.
            quality: what is asked for.
        """
        reader = sub.DataReader(self._participant, self._topic(name, _carrier(kind)), _qos(quality, kind))
        condition = core.ReadCondition(reader, core.ViewState.Any | core.InstanceState.Alive | core.SampleState.NotRead)
        self._waiting.attach(condition)
        self._readers.append((reader, condition, received))

    def spin(self, timeout_s: float) -> int:
        """Deliver what has arrived, waiting for it at most so long; the number of messages."""
        delivered = self._deliver()
        if delivered or timeout_s <= 0:
            return delivered
        self._waiting.wait(int(timeout_s * 1e9))
        return self._deliver()

    def wait_for(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Spin until something is so, or the time is over; whether it is."""
        end = time.monotonic() + timeout_s
        while not ready() and time.monotonic() < end:
            self.spin(0.02)
        return ready()

    def close(self) -> None:
        """Leave the bus."""
        for reader, condition, _ in self._readers:
            self._waiting.detach(condition)
            del reader
        self._readers.clear()
        self._writers.clear()
        del self._waiting
        del self._participant

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _deliver(self) -> int:
        count = 0
        for reader, condition, received in self._readers:
            for sample in reader.take(N=64, condition=condition):
                if isinstance(sample, InvalidSample):  # an end of a writer, no message
                    continue
                received(sample.message, sample.sample_info.source_timestamp)
                count += 1
        return count

    def _topic(self, name: str, carrier: type[Any]) -> topic.Topic[Any]:
        if not name.startswith("/"):
            raise ConfigError(f"topic '{name}' is relative: give its absolute name, e.g. '/{name}'")
        return topic.Topic(self._participant, f"rt{name}", carrier)


@cache
def _carrier(kind: str) -> type[Any]:
    """The class Cyclone DDS knows a message type by; bytes are made and read by `rosmsg.cdr`."""

    def serialize(self: Any, **_: Any) -> bytes:
        return encode(kind, self.message, KNOWN)

    def deserialize(cls: Any, data: bytes, **_: Any) -> Any:
        return cls.of(decode(kind, data, KNOWN))

    def of(cls: Any, message: Any) -> Any:
        carried = cls.__new__(cls)
        carried.message = message
        return carried

    carrier: Any = _struct(kind)
    carrier.serialize, carrier.deserialize, carrier.of = serialize, classmethod(deserialize), classmethod(of)
    return carrier


@cache
def _struct(kind: str) -> type[Any]:
    package, part, name = kind.split("/")
    fields = {f.name: _idl_type(f) for f in KNOWN[kind].fields}
    made = idl.make_idl_struct(f"{package}_{name}_", f"{package}::{part}::dds_::{name}_", fields)
    return annotations.final(made)


def _idl_type(field: Field) -> Any:
    single: Any = _IDL.get(field.type) or _struct(field.type)
    if field.size is None:
        return single
    return types.sequence[single] if field.size < 0 else types.array[single, field.size]


_IDL: dict[str, Any] = {
    **{name: getattr(types, name) for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")},
    **{"uint64": types.uint64, "float32": types.float32, "float64": types.float64},
    **{"char": types.uint8, "byte": types.byte, "bool": bool, "string": str},
}


def _qos(quality: Quality, kind: str) -> qos.Qos:
    policy = qos.Policy
    return qos.Qos(
        policy.Reliability.Reliable(util.duration(milliseconds=100))
        if quality.reliable
        else policy.Reliability.BestEffort,
        policy.Durability.TransientLocal if quality.latched else policy.Durability.Volatile,
        policy.History.KeepLast(quality.depth),
        policy.DataRepresentation(use_cdrv0_representation=True),
        policy.Userdata(f"typehash={type_hash(kind, KNOWN)};".encode()),
    )


def _domain_id(given: int | None) -> int:
    text = os.environ.get("ROS_DOMAIN_ID") or "0"
    value = given if given is not None else int(text) if text.isdigit() else -1
    if not 0 <= value <= 232:
        raise ConfigError(f"the ROS domain is {text if given is None else given}: give a number from 0 to 232")
    return value


def _configure(discovery: str | None) -> None:
    """Add what ROS 2 needs to the user's configuration of Cyclone DDS, which is read when a domain is first used."""
    chosen = discovery or os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
    if chosen not in _RANGES:
        raise ConfigError(unknown_name("discovery range", chosen, _RANGES))
    ours, own = f"{_COMPATIBLE}{_RANGES[chosen]}", os.environ.get("CYCLONEDDS_URI", "")
    if ours not in own:
        os.environ["CYCLONEDDS_URI"] = f"{own},{ours}" if own else ours
