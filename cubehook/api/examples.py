"""Values that the OpenAPI document shows as examples; a test sees that each is as its schema says."""

from __future__ import annotations

import msgspec

from cubehook.api.calls import CallListed, Calls
from cubehook.api.deliveries import Deliveries, DeliveryListed
from cubehook.api.errors import ErrorBody, ErrorDetail
from cubehook.api.tokens import NewToken, TokenMade
from cubehook.events import CallState, Direction, Granularity, Outcome
from cubehook.records import DeliveryStatus, ErrorClass

_CALL = "64YBA8PFTTH9E"
_DELIVERY = "64YBA8PGK4W2M"

EXAMPLES: dict[type[msgspec.Struct], msgspec.Struct] = {
    ErrorBody: ErrorBody(
        ErrorDetail(
            "invalid",
            "A field is not as it must be",
            {"limit": 'expected a whole number from 1 to 200; found "500"'},
        )
    ),
    NewToken: NewToken(name="Wallboard", role="viewer"),
    TokenMade: TokenMade(
        id="64YBA8Q03HKZT",
        name="Wallboard",
        role="viewer",
        created_by="Ada",
        created_at="2024-11-23T16:00:00.000000Z",
        last_used_at=None,
        token="chk_...",  # noqa: S106
    ),
    Calls: Calls(
        items=[
            CallListed(
                id=_CALL,
                cube="hq",
                calling_number="+12517676234",
                called_number="+12512501663",
                direction=Direction.INCOMING,
                state=CallState.DISCONNECTED,
                outcome=Outcome.ANSWERED,
                inferred=False,
                started_at="2024-11-23T16:03:20.104210Z",
                alerting_at="2024-11-23T16:03:20.410010Z",
                connected_at="2024-11-23T16:03:26.002331Z",
                disconnected_at="2024-11-23T16:03:36.200940Z",
                ring_seconds=5.592,
                talk_seconds=10.198,
            )
        ],
        next=_CALL,
    ),
    Deliveries: Deliveries(
        items=[
            DeliveryListed(
                id=_DELIVERY,
                webhook="crm",
                status=DeliveryStatus.PENDING,
                at="2024-11-23T16:03:36.200940Z",
                due_at="2024-11-23T16:03:38.412007Z",
                error_class=ErrorClass.HTTP,
                answered=503,
                redelivery=False,
                call=_CALL,
                cube="hq",
                event_id=f"{_CALL}-3",
                granularity=Granularity.CALL,
                state="DISCONNECTED",
                calling_number="+12517676234",
                called_number="+12512501663",
                attempts=1,
            )
        ],
        next=None,
    ),
}
