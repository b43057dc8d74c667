"""What webhooks are told of the service itself."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook import config
from cubehook.events import Event, Notice, NoticeType
from cubehook.ids import Ids, first_id, id_text
from cubehook.notices import CubeWatch, about_cube, about_webhook
from cubehook.records import Registration, RegistrationState

NOW = 1_732_377_816_200_940
State = RegistrationState


def standing(state: RegistrationState, cube: str = "hq") -> Registration:
    return Registration(cube=cube, state=state, since=NOW, reason="Because.", last_error="refused")


class WatchTests(SynchronousTestCase):
    def told(self, watch: CubeWatch, *states: RegistrationState) -> list[NoticeType | None]:
        return [watch.changed(standing(state)) for state in states]

    def test_registered_and_lost_are_told_once_each(self) -> None:
        self.assertEqual(
            [NoticeType.CUBE_REGISTERED, None, NoticeType.CUBE_LOST, None, NoticeType.CUBE_REGISTERED],
            self.told(
                CubeWatch(),
                State.REGISTERED,
                State.REGISTERED,
                State.SILENT,
                State.REJECTED,
                State.REGISTERED,
            ),
        )

    def test_passing_states_are_not_told(self) -> None:
        self.assertEqual(
            [NoticeType.CUBE_REGISTERED, None, None],
            self.told(CubeWatch(), State.REGISTERED, State.REGISTERING, State.REGISTERED),
        )

    def test_what_never_was_registered_is_not_lost(self) -> None:
        self.assertEqual([None, None], self.told(CubeWatch(), State.REGISTERING, State.REJECTED))

    def test_disabling_a_cube_is_no_loss(self) -> None:
        self.assertEqual(
            [NoticeType.CUBE_REGISTERED, None], self.told(CubeWatch(), State.REGISTERED, State.DISABLED)
        )

    def test_it_goes_on_from_an_earlier_run(self) -> None:
        for before, expected in (
            (State.REGISTERED, [None, NoticeType.CUBE_LOST]),
            (State.UNREGISTERED, [NoticeType.CUBE_REGISTERED, NoticeType.CUBE_LOST]),
        ):
            watch = CubeWatch()
            watch.restore(standing(before))
            self.assertEqual(expected, self.told(watch, State.REGISTERED, State.UNREGISTERED))


class NoticeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.next_id = Ids(lambda bits: 5).next

    def cube(self, id: str) -> Event:
        return about_cube(NoticeType.CUBE_LOST, standing(State.SILENT, id), NOW, self.next_id)

    def test_of_a_cube(self) -> None:
        event = self.cube("hq")
        self.assertEqual(("hq", None, NOW), (event.cube, event.granularity, event.at))
        self.assertEqual(
            Notice(
                type=NoticeType.CUBE_LOST,
                timestamp="2024-11-23T16:03:36.200940Z",
                event_id=id_text(event.id),
                data={"cube": "hq", "state": "silent", "reason": "Because.", "last_error": "refused"},
            ),
            event.payload,
        )

    def test_of_a_webhook(self) -> None:
        hook = config.Webhook(id="crm", name="CRM")
        event = about_webhook(NoticeType.WEBHOOK_DISABLED, hook, NOW, self.next_id, reason="410", pending=3)
        assert isinstance(event.payload, Notice)
        self.assertEqual("", event.cube)
        self.assertEqual({"webhook": "crm", "name": "CRM", "reason": "410", "pending": 3}, event.payload.data)
        nameless = about_webhook(
            NoticeType.WEBHOOK_DISABLED, config.Webhook(id="erp"), NOW, self.next_id
        ).payload
        assert isinstance(nameless, Notice)
        self.assertEqual("erp", nameless.data["name"])

    def test_those_of_one_subject_are_in_one_lane_that_no_call_can_have(self) -> None:
        first, second, other = self.cube("hq"), self.cube("hq"), self.cube("branch")
        hook = about_webhook(NoticeType.WEBHOOK_FAILING, config.Webhook(id="hq"), NOW, self.next_id)
        self.assertEqual(first.call, second.call)
        self.assertEqual(3, len({first.call, other.call, hook.call}))
        self.assertLess(max(first.call, other.call, hook.call), first_id(2**21))
        self.assertLess(first.id, second.id)
