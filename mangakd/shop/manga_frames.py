"""Frames around requests: side remarks, contrasts of two topics, and courtesies.

A contrast frame names two topics and requests one of them ({want}); only word order and negation show which topic. A bag
of words cannot solve these frames. Both topics are drawn from the same phrases, so the phrases themselves give no hint.
"""

from __future__ import annotations

# Embedded questions: they follow "tell me", "I know", "you explained".
ASKS: dict[str, tuple[str, ...]] = {
    "product_question": (
        "how many volumes {title} has", "whether {item} has colour pages", "which age {title} is rated for",
        "what the {edition} of {title} adds", "~whether {title} is finished in English",
    ),
    "product_discovery": (
        "which {genre} series you stock", "where the books by {author} are on your site",
        "what else you sell by {author}",
        "which {genre} titles cost less than {price}", "~what new {genre} you got in {month}",
    ),
    "recommendation": (
        "what to read after {title}", "which {genre} series suits {who}", "what you would pick for a fan of {author}",
        "whether to read {title} or {title} first", "~which manga would cheer {who} up",
    ),
    "order_tracking": (
        "where {orderid} is now", "whether {orderid} has been sent", "why {orderid} is late",
        "which day {item} from {orderid} will be at my door", "~how far {orderid} has come",
    ),
    "shipping": (
        "what delivery to {place} costs", "how long shipping to {country} takes", "whether you ship to {place}",
        "which carrier brings parcels to {place}", "~what postage is from {price}",
    ),
    "return_request": (
        "how I send back {item}, it is {flaw}", "how I get my money back for {item}",
        "when my refund for {orderid} comes",
        "~where to bring {item} for a refund",
    ),
    "promotion": (
        "whether {code} is still valid", "when the {genre} sale starts", "how much is off {title} this week",
        "why {code} was rejected", "~which deals run on {edition}s",
    ),
    "faq": (
        "how I change my password", "whether I can pay with {pay}", "when the shop in {city} opens",
        "how pre-orders are charged", "where I find my invoices", "~how I close my account",
    ),
    "chitchat": (
        "how you are", "what your favourite manga is", "whether you like {title}", "who would win in {title}",
        "~what you do on {weekday}s",
    ),
    "escalation": (
        "how I reach a real person", "when a manager will call me", "where I can complain about {carrier}",
        "~who is in charge of complaints",
    ),
}  # fmt: skip

# Actions: they follow "I want to", "help me", "I managed to".
ACTIONS: dict[str, tuple[str, ...]] = {
    "product_question": (
        "find out if {item} has colour pages", "learn how long {title} is", "check what language {item} is in",
        "~find out who translated {title}",
    ),
    "product_discovery": (
        "find {genre} manga under {price}", "browse your {genre} shelf", "see everything you have by {author}",
        "~look through the {edition}s by {author}",
    ),
    "recommendation": (
        "get a tip on what to read after {title}", "pick a good series for {who}",
        "get advice on {genre} manga for {who}",
        "~choose between {title} and {title}",
    ),
    "order_tracking": (
        "track {orderid}", "find out where {order} is", "check the status of {orderid}", "~see how far {orderid} got",
    ),
    "shipping": (
        "know the delivery cost to {place}", "learn how fast you ship to {country}", "get a postage price for {city}",
        "~check if you deliver to {place}",
    ),
    "return_request": (
        "return {item}", "send back {item} for a refund", "get my money back for {orderid}",
        "~exchange {item}, it is {flaw}",
    ),
    "promotion": (
        "use the code {code}", "get the {percent} discount on {title}", "find out when the {genre} sale ends",
        "~redeem my voucher on {item}",
    ),
    "faq": (
        "change my mail address", "learn if you take {pay}", "download my invoices",
        "learn your opening hours in {city}",
        "~open an account for {who}",
    ),
    "chitchat": (
        "chat a bit about {title}", "say thank you", "tell you how much I love {title}", "~hear a joke about {title}",
    ),
    "escalation": (
        "talk to a human about {item}", "file a complaint about {orderid}", "speak to your manager",
        "~be called back by a real person",
    ),
}  # fmt: skip

ASK_FRAMES: tuple[str, ...] = (
    "I want to know {want}, not {other}", "not {other}, I want to know {want}", "tell me {want}, I do not care {other}",
    "I do not care {other}, tell me {want}", "I know {other}, but not {want}",
    "what I do not know is {want}; I know {other}",
    "you told me {other} when I asked {want}", "I asked {want} and you told me {other}, so again please",
    "{other}: that can wait. {want}: that is my question", "{want}: that is my question. {other}: that can wait",
    "{who} asked {other}, I am asking {want}", "I am asking {want}, it was {who} who asked {other}",
    "yesterday you explained {other}, today explain {want}", "explain {want} today, {other} you explained yesterday",
    "instead of {other}, I would rather know {want}", "I would rather know {want} than {other}",
    "I wanted to ask {other} but found it, so now only {want}", "only {want} is open, I found out {other}",
    "~it is not about {other}, it is about {want}", "~it is about {want}, it is not about {other}",
    "~I never asked {other}, what I asked is {want}", "~skip {other} and go straight to {want}",
)  # fmt: skip

ACTION_FRAMES: tuple[str, ...] = (
    "I want to {want}, not {other}", "I do not want to {other}, I want to {want}",
    "help me {want}, I do not need to {other}",
    "I already managed to {other}, now I need to {want}", "I need to {want} now, I already managed to {other}",
    "{who} wants to {other}, I want to {want}", "I want to {want}, it is {who} who wants to {other}",
    "I came to {want} and not to {other}", "I did not come to {other} but to {want}",
    "I was going to {other}, but now I would rather {want}", "I would rather {want}, though I was going to {other}",
    "your bot made me {other}, all I wanted was to {want}", "all I wanted was to {want} but your bot made me {other}",
    "~no, I am not trying to {other}, I am trying to {want}", "~I am trying to {want}, no, I am not trying to {other}",
    "~how can I {want} without having to {other}", "~forget that I wanted to {other}, let me {want}",
)  # fmt: skip

# Side remarks about a topic that is settled; the request of another intent stands next to it.
REMARK_FRAMES: tuple[str, ...] = (
    "I already know {ask}", "no need to tell me {ask}", "yesterday I asked {ask}, that is answered",
    "{who} just asked you {ask}", "you told me {ask}, thanks", "I managed to {act} by myself", "I do not want to {act}",
    "this is not to {act}", "later {who} may want to {act}", "~I found out {ask}", "~I have no wish to {act}",
)  # fmt: skip

REMARKS: dict[str, tuple[str, ...]] = {
    "product_question": (
        "{title} has such nice colour pages", "I read that {title} has {10-90} volumes",
        "the {edition} is in English, great",
        "~my {title} is the uncensored print",
    ),
    "product_discovery": (
        "I found the {genre} shelf on your site", "your list of {author} books is long", "I was browsing {genre} manga",
        "~I searched for {author} and found plenty",
    ),
    "recommendation": (
        "{who} recommended {title} to me", "you suggested {title} {past} and I loved it",
        "I know what I want to read next",
        "~your tip to read {title} was a good one",
    ),
    "order_tracking": (
        "I tracked {orderid} and it is fine", "{orderid} arrived {past}", "my tracking link works",
        "{carrier} brought {order} {past}", "~the status says {orderid} is on its way, good",
    ),
    "shipping": (
        "delivery to {place} was quick", "I know shipping to {country} costs {price}",
        "express shipping is fine for me",
        "~I do not mind the postage to {place}",
    ),
    "return_request": (
        "I sent {item} back {past}", "my refund for {orderid} came {past}", "I am keeping {item} even if it is {flaw}",
        "~I got my money back for {item}",
    ),
    "promotion": (
        "I used {code} {past}", "I saw the {genre} sale", "the {percent} discount on {title} was great",
        "~I do not need a coupon",
    ),
    "faq": (
        "I pay with {pay}", "I changed my password {past}", "I was in your shop in {city} {past}",
        "~I have an account with you",
    ),
    "chitchat": (
        "how are you", "I am a big fan of {title}", "{title} made me cry", "lovely weather in {city}",
        "~you are a nice bot",
    ),
    "escalation": (
        "your colleague on the phone was kind", "I do not need a human for this",
        "my complaint about {carrier} is settled",
        "~the manager called me back {past}",
    ),
}  # fmt: skip

JOINERS: tuple[str, ...] = (". ", ", ", ". ", " - ", "; ", ", but ", ". Anyway, ", ". Now: ", "~. So, ")
OPENERS: tuple[str, ...] = (
    "hi, ", "hello, ", "hey, ", "hi MangaAssist, ", "good morning, ", "good evening, ", "quick question: ", "sorry, ",
    "excuse me, ", "ok so ", "hmm, ", "well, ", "um, ", "one thing: ", "please, ", "hey there, ", "so, ", "right, ",
    "~hiya, ", "~question for you: ", "~dear team, ",
)  # fmt: skip
CLOSERS: tuple[str, ...] = (
    " thanks", " thank you", " please", " thanks in advance", " cheers", " asap", " if possible",
    " sorry to bother you",
    " just wondering", " let me know", " thanks a lot", " :)", " it is for {who}", " I am in {city}",
    " by {date} ideally",
    "~ much appreciated", "~ no rush",
)  # fmt: skip
