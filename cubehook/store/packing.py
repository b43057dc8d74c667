"""
Notification bodies, packed small: they are most of what the store would weigh.

A gateway's messages differ in a few numbers only, so zlib with a dictionary of their boilerplate
shrinks one to a quarter in about 7 microseconds.  A packed body names its dictionary by checksum
(RFC 1950, DICTID), so another dictionary can be added beside this one; this one can never change.
"""

from __future__ import annotations

import zlib

# The likeliest text stands last, where zlib reaches it with the shortest distances.
_DICTIONARY = b"""SolicitXccConnectionAuthorize><mediaForking><mediaForkingState>FORK_STARTED\
</transferred><handoffLeave/><handoffJoin><redirected><redirectAddrData><calledAddrData><type>URI</type><addr>sip:\
</redirectAddrData></redirected><TxVoiceDurationMSec><RxVoiceDurationMSec><discCause>102</discCause>\
<discCause>19</discCause><discCause>17</discCause><origCallingAddrData><coderByte>160</coderByte>\
<guidAltFormat></guidAltFormat><routeDescription></routeDescription><jitterData><roundTripDelayMSec>\
</roundTripDelayMSec><onTimeRvPlayMSec></onTimeRvPlayMSec><gapFillWithPredictionMSec>0</gapFillWithPredictionMSec>\
<gapFillWithInterpolationMSec>0</gapFillWithInterpolationMSec><gapFillWithRedundancyMSec>0\
</gapFillWithRedundancyMSec><lostPacketsCount>0</lostPacketsCount><earlyPacketsCount>0</earlyPacketsCount>\
<latePacketsCount>0</latePacketsCount><receiveDelayMSec></receiveDelayMSec><loWaterPlayoutDelayMSec>\
</loWaterPlayoutDelayMSec><hiWaterPlayoutDelayMSec></hiWaterPlayoutDelayMSec></jitterData>\
<event><disconnected><mediaData><type>VOICE</type><coderType>g711ulaw</coderType></mediaData>\
<discCause>16</discCause><statsData><callDuration>PT</callDuration><TxPacketsCount></TxPacketsCount><TxBytesCount>\
</TxBytesCount><TxDurationMSec></TxDurationMSec><RxPacketsCount></RxPacketsCount><RxBytesCount></RxBytesCount>\
<RxDurationMSec></RxDurationMSec></statsData></disconnected><event><callDelivery/></event><event><created>\
<event><connected><connDetailData><connData><connID></connID><state>IDLE</state></connData><guid></guid>\
<callingAddrData><type>E164</type><addr>+1</addr></callingAddrData><origCalledAddrData><type>E164</type><addr>\
</addr></origCalledAddrData><calledAddrData><type>E164</type><addr></addr></calledAddrData>\
<connIntfType>CONN_SIP</connIntfType><mediaData><type>VOICE</type></mediaData><connIntf></connIntf>\
<connDirectionType>OUTGOING</connDirectionType><connDirectionType>INCOMING</connDirectionType><routeName>\
</routeName></connDetailData></created></event></connDetailData></connected></event>\
<?xml version="1.0" encoding="UTF-8"?><SOAP:Envelope xmlns:SOAP="http://www.w3.org/2003/05/soap-envelope">\
<SOAP:Body><NotifyXccConnectionData xmlns="http://www.cisco.com/schema/cisco_xcc/v1_0"><msgHeader><transactionID>\
</transactionID><registrationID>:XCC:cubehook:</registrationID></msgHeader><callData><callID></callID>\
<state>ACTIVE</state></callData><connData><connID></connID><state>DISCONNECTED</state><state>CALL_DELIVERY</state>\
<state>CONNECTED</state></connData><state>ALERTING</state></connData><event><alerting/></event>\
</NotifyXccConnectionData></SOAP:Body></SOAP:Envelope>"""

_LEVEL = 1
_WINDOW_BITS = 12  # the dictionary and a message; more costs time to set up for each
_MEMORY_LEVEL = 5

# One that has taken in the dictionary, to be copied: a third quicker than to begin anew.
_PACKER = zlib.compressobj(
    _LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY
)


def pack(body: bytes) -> bytes:
    """`body` as it is kept."""
    packer = _PACKER.copy()
    return packer.compress(body) + packer.flush()


def unpack(packed: bytes) -> bytes:
    """The body that `pack` was given."""
    unpacker = zlib.decompressobj(_WINDOW_BITS, _DICTIONARY)
    return unpacker.decompress(packed) + unpacker.flush()
