"""Names and values that fill the slots of the MangaAssist phrases: titles, authors, places, ids, dates.

Titles and people are real, because a pretrained encoder knows them and a bag of words does not. The training texts
lack the ``NEW_*`` names, as a shop's labelled data lacks new titles.
"""

from __future__ import annotations

TITLES: tuple[str, ...] = (
    "One Piece", "Naruto", "Bleach", "Dragon Ball", "Berserk", "Vinland Saga", "Vagabond", "Slam Dunk", "Monster",
    "20th Century Boys", "Pluto", "Death Note", "Bakuman", "Fullmetal Alchemist", "Attack on Titan", "Haikyu!!",
    "My Hero Academia", "Demon Slayer", "Jujutsu Kaisen", "Chainsaw Man", "Fire Punch", "Hunter x Hunter",
    "Yu Yu Hakusho", "Tokyo Ghoul", "Black Clover", "Fairy Tail", "Soul Eater", "Fire Force", "Blue Exorcist",
    "The Promised Neverland", "Dr. Stone", "Assassination Classroom", "Spy x Family", "Kaiju No. 8", "Mashle",
    "Sakamoto Days", "Blue Lock", "Blue Box", "Oshi no Ko", "Kaguya-sama", "Horimiya", "Fruits Basket", "Nana",
    "Paradise Kiss", "Ouran High School Host Club", "Sailor Moon", "Cardcaptor Sakura", "Chobits", "xxxHolic",
    "Tsubasa", "Akira", "Domu", "Ghost in the Shell", "Nausicaa", "Blame!", "Knights of Sidonia", "Dorohedoro",
    "Uzumaki", "Tomie", "Gyo", "Parasyte", "I Am a Hero", "Gantz", "Inuyashiki", "Goodnight Punpun", "Solanin",
    "A Silent Voice", "Your Lie in April", "Orange", "March Comes in Like a Lion", "Honey and Clover", "Yotsuba&!",
    "Azumanga Daioh", "Nichijou", "Mob Psycho 100", "One-Punch Man", "Gintama", "Rurouni Kenshin", "Inuyasha",
    "Ranma 1/2", "Maison Ikkoku", "Urusei Yatsura", "Mao", "JoJo's Bizarre Adventure", "Golden Kamuy", "Kingdom",
    "Hajime no Ippo", "Ashita no Joe", "Captain Tsubasa", "Eyeshield 21", "Kuroko's Basketball", "Astro Boy",
    "Black Jack", "Phoenix", "Lone Wolf and Cub", "Crying Freeman", "Great Teacher Onizuka", "Initial D",
    "Made in Abyss", "The Apothecary Diaries", "Delicious in Dungeon", "Mushishi", "Land of the Lustrous",
    "A Bride's Story", "Emma", "The Ancient Magus' Bride", "Noragami", "Black Butler", "Pandora Hearts", "D.Gray-man",
    "The Seven Deadly Sins", "Magi", "Food Wars", "Skip Beat!", "Kimi ni Todoke", "Ao Haru Ride", "Wotakoi",
)  # fmt: skip

NEW_TITLES: tuple[str, ...] = (
    "Witch Hat Atelier", "Frieren", "Dandadan", "Blue Period", "Skip and Loafer", "Mushoku Tensei", "Medalist",
    "Hell's Paradise", "Ajin", "Dungeon People", "Akane-banashi", "Gachiakuta", "Kagurabachi", "Undead Unluck",
    "Komi Can't Communicate", "My Dress-Up Darling", "Toilet-bound Hanako-kun", "To Your Eternity",
    "Blood on the Tracks",
    "Innocent", "Claymore", "Trigun", "Hellsing", "The Rose of Versailles", "Banana Fish", "Look Back", "Goodbye, Eri",
)  # fmt: skip

AUTHORS: tuple[str, ...] = (
    "Eiichiro Oda", "Oda", "Masashi Kishimoto", "Tite Kubo", "Akira Toriyama", "Toriyama", "Kentaro Miura",
    "Naoki Urasawa", "Urasawa", "Takehiko Inoue", "Hiromu Arakawa", "Hajime Isayama", "Tatsuki Fujimoto", "Fujimoto",
    "Yoshihiro Togashi", "Sui Ishida", "Rumiko Takahashi", "CLAMP", "Ai Yazawa", "Naoko Takeuchi", "Katsuhiro Otomo",
    "Junji Ito", "Tsutomu Nihei", "Inio Asano", "Asano", "Osamu Tezuka", "Tezuka", "Makoto Yukimura", "Hirohiko Araki",
    "Kaoru Mori", "Q Hayashida", "Shuzo Oshimi", "Chica Umino", "Kiyohiko Azuma", "Hiro Mashima", "Gege Akutami",
)  # fmt: skip

NEW_AUTHORS: tuple[str, ...] = (
    "Kamome Shirahama", "Kanehito Yamada", "Yukinobu Tatsu", "Tsubasa Yamaguchi", "Yoshitoki Oima", "Riyoko Ikeda",
    "Moto Hagio", "Shigeru Mizuki", "Jiro Taniguchi", "Taiyo Matsumoto", "Akiko Higashimura",
)  # fmt: skip


def _held_out(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"~{name}" for name in names)


# Rules of the slot grammar (see manga_corpus.py): {name} calls a rule, {a-b} draws a number, [x|y] picks an option.
SLOTS: dict[str, tuple[str, ...]] = {
    "title": TITLES + _held_out(NEW_TITLES),
    "author": AUTHORS + _held_out(NEW_AUTHORS),
    "vol": ("vol {1-30}", "volume {1-30}", "vol. {1-30}", "book {1-12}", "vols {1-4} to {5-12}"),
    "ord": ("first", "second", "third", "fourth", "fifth", "last", "latest", "newest"),
    "item": (
        "{title} {vol}", "{title} {vol}", "{vol} of {title}", "the {ord} volume of {title}",
        "{title}", "the {title} box set", "my copy of {title}", "the {edition} of {title}",
    ),
    "edition": ("deluxe edition", "hardcover", "omnibus", "collector's edition", "box set", "paperback", "3-in-1"),
    "language": ("English", "German", "French", "Japanese", "Spanish", "Italian"),
    "genre": (
        "shonen", "shojo", "seinen", "josei", "isekai", "horror", "romance", "sports", "slice of life", "mecha",
        "fantasy", "historical", "cooking", "mystery", "sci-fi", "comedy", "psychological", "supernatural",
    ),
    "order": (
        "MA-{10000-99999}", "MA{10000-99999}", "#{100000-999999}", "order {100000-999999}", "no. {10000-99999}",
        "my order MA-{10000-99999}", "my order", "my {title} order", "my parcel", "my package",
    ),
    "orderid": ("MA-{10000-99999}", "#{100000-999999}", "order MA-{10000-99999}", "order {100000-999999}"),
    "date": (
        "{1-28} {month}", "{month} {1-28}", "the {1-28}th", "{weekday}", "next {weekday}", "the weekend", "Christmas",
        "my birthday", "the end of {month}", "tomorrow",
    ),
    "past": ("last {weekday}", "on {1-28} {month}", "yesterday", "{2-20} days ago", "{2-5} weeks ago", "last month"),
    "month": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "city": (
        "Berlin", "Hamburg", "Paris", "Lyon", "London", "Leeds", "Dublin", "Madrid", "Lisbon", "Rome", "Milan",
        "Vienna",
        "Zurich", "Oslo", "Stockholm", "Warsaw", "Prague", "Toronto", "Chicago", "Austin", "Seattle", "~Helsinki",
        "~Athens", "~Boston", "~Glasgow",
    ),
    "country": (
        "Germany", "France", "the UK", "Ireland", "Spain", "Portugal", "Italy", "Austria", "Norway", "Poland", "Canada",
        "the US", "Australia", "~Finland", "~Greece", "~Brazil",
    ),
    "place": ("{city}", "{country}", "{city}", "a small village near {city}", "a PO box in {city}"),
    "price": ("${5-80}", "{5-80} euros", "£{5-60}", "{10-60} bucks", "€{5-90}", "${5-40}.99"),
    "pay": ("PayPal", "Visa", "Mastercard", "Apple Pay", "Klarna", "bank transfer", "a gift card", "a debit card"),
    "carrier": ("DHL", "UPS", "FedEx", "DPD", "the post office", "Royal Mail", "the courier"),
    "code": ("MANGA{5-30}", "OTAKU{5-30}", "READ{5-30}", "SUMMER{5-30}", "WELCOME{5-20}"),
    "percent": ("{5-50}%", "{5-50} percent"),
    "who": (
        "my sister", "my brother", "my son", "my daughter", "my girlfriend", "my boyfriend", "a friend", "my nephew",
        "my niece", "my flatmate", "a colleague", "my dad",
    ),
    "flaw": (
        "torn", "damaged", "bent at the spine", "missing pages", "the wrong edition", "in the wrong language",
        "misprinted",
        "soaked through", "a duplicate",
    ),
}  # fmt: skip
