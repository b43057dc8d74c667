from twisted.application.service import ServiceMaker

cubehook = ServiceMaker(
    "cubehook", "cubehook.tap", "Call events of Cisco CUBE gateways, as webhooks.", "cubehook"
)
