"""Words that are names, too: in doubt they are words.

Beside these, the commonest English words are taken from spaCy and Faker (``names.py``).
"""

from __future__ import annotations

# Names that are months, places, peoples, products and companies at least as often.
_ELSEWHERE = """
    adelaide africa alabama alexa alexandria alps amazon amazonia america amsterdam angeles ansible
    antarctica apple april arizona asia aspen athens atlanta atlas august austin australia avignon
    azure barcelona benz berlin bert boston bristol brooklyn cairo california cambridge canada
    carolina cassandra chelsea cherokee chester chicago china claude cleveland cologne colorado
    columbia columbus copilot cortana cuba cypress dakota dallas delhi delta denver disney django
    dublin durham earley eden edison elastic england essex europe florence florida ford fourier
    france french gemini gemma geneva genoa georgia german germany gitlab google granada hamilton
    holland honda houston hudson india indiana ireland israel italy jan january japan jasmine java
    jenkins jerusalem jest jordan jul july jun june jupiter kafka kent kenya kingston lambda
    lancaster laravel lincoln linux lisbon lisp llama london lourdes madison madrid malta manchester
    mar mars maven melbourne mercedes mercury metro mexico milan mississippi missouri mistral mocha
    montana montgomery montreal munich muslim nazi neptune nevada newton nixos oauth odessa ohio
    olympia openid oracle orlando ottawa oxford pandora paris pascal perl philadelphia phoenix
    porsche porter prague puma puppet python qwen raspberry reading redis richmond rio roman rome
    roosevelt ruby rust sahara salem samsung santa santiago saturn scala selenium sep siemens sierra
    siri skype solr spain spark stanford stockholm sydney tennessee tesla texas thames tokyo toledo
    toronto travis trinity troy turkey ubuntu uganda valencia vatican venice venus verona victoria
    vienna virginia wales warsaw washington wellington windsor wolfram york zurich
"""
ELSEWHERE = frozenset(_ELSEWHERE.split())

# Names that are ordinary words, which stand at the start of sentences and in headings.
_WORDS = """
    ability accept account ace act active add admiral ads advent alert alma almond alpha alto amber
    amen ana angel annotated ant ante any app apps arch archer art ash ask aura aurora autumn baba
    babe baby baker bale bali banks bar barb baron base basil bat beau bee bell belle bench bent
    berry best beta bias bill birch bird bishop bite bitten blaze bless blessing bliss block blossom
    bo book booker boolean boss box brain branch brandy bravo bro brook brooks brown buck bud buddy
    bug bunk bus buster butch butler cage cal call callback cam can canal cancel candy cannon canyon
    cap captain cards carry cas case cash cat chad chance chandler change chapter char charity charm
    chase chat cheat check cherish cherry chi chick chief chin chip christ christian chuck church
    cinnamon clay click client cliff close coach coal coco code colon colonel colt come comfort
    commodore con connect constant cook cool copy coral cord core corona council count cox crate
    create creed cross crystal daisy dale data date dawn day days deacon deal dean dear december dee
    dell demo deploy dev diamond dict directory dirk dirt dob doc dock doctor doll dolly dom don dot
    dove dow drew duff duke dusk dusty dutch duty earl early earnest east easter ebony echo eddy
    edit el elder em email emerald emit end energy era error es esc essence eta ether eve even ever
    every fae fair fairy faith falcon fancy fang fate fay feature february fed field file find fine
    finish fisher fix flag fleet flick flint flora focus ford forest forum foster fox freeman
    freight friday friend functions gage gal gala gale game gang garland garrison gate gauge gay gee
    gene general genesis genie german get gift ginger give given glen glory glove glover go golden
    good gorge governor grace grant grape gray great green greet grit group grove guide gum gun
    gunner guy hack hale hall ham hand handler handy happy harbor hard hardy harm harmony harsh hart
    has haven hazel he head heath heather heaven help herb here hero hi high hill him hind his holly
    home homer honey honor hop hope host house how hub hue hung hunt hunter icon icy id idea
    identification immaculate import in indy infant info innocent integer ion iris iron issue it
    ivory ivy jade jail jasmine jasper jay jet jewel job jock join joint joke journey joy judge
    junior just justice kaiser kale karma key kick kids kill king kit kitty knight lab labels lad
    lady lake lamb lambert lan lance land lane large lark last late laurel lavender law lawyer le
    lead leaf lean learn lee left lemon len les less let level lex liberty lie lies life light lily
    lim line link lion list little live loan log logan logging lone long look loop loot lora lord
    lore lot love low loyal lucky luna lyric mac mace mack mad made magic mail main major make mal
    male man manager manly manual many map mar mare marina marine mark market marquis marry mars
    marshal mart martial marvel mason master mat mate math matrix matter maverick max maxim may
    mayor me meadow mean media meet mel memory men mentor mercy merit merry meta mick mile miles
    mill miller mills min mina mind mine miner minor mint miracle miss mission mist misty mix mock
    model monday money moon more morning moses mother much music must my na nail nam name nan nap
    nash nat navy near need neo net new news next nice night nil nim ninja no noble node noel none
    norm north note notice nova november now oak object ocean october odd ode offer olive om on once
    one only open oral orange order other otto our out over owe own paddy page pair palm pam park
    pass pastor pat patch path patience pause paw pay paz peace peak pearl peer peg penny people
    pepper per perfect pet petty phase pick pier pierce pike pilgrim pin pine ping pink pip piper
    place plan play pleasant please plum point pol poll pool pope poppy port post potter power
    precious prefer present press price pride prima prime prince princess print prior pro profit
    promise prosper protocol providence prudence pub puck pull purity push put queen query quick
    quiet quill quin rack raid rain rally ram ran rand random ransom raven raw ray rea read reader
    real reason red reed reef reg region registration reign rein relief rem remy ren reply report
    req rest result rev rex rice rich rick ride ridge right rim ring rise risk river road roar rob
    rock rocky rod roe roll rome room root rory rose rosemary rosy rough round row rowan royal rule
    run rush russet rusty sad safari safe saga sage said sailor saint sal sales salmon salt same
    sand sandy sap saturday save say scarlet schema schemaless schemas school scope score scout sea
    search season see self send sense september serene server set seven shade shadow shah share
    sharp she sheet shell shepherd sherry ship shore short show si side sierra sigma sign signal
    silence silver sim simple since sincere sing sir sis sister six size skip sky sly small smart
    snow so soft sol sole some son song soon sorry soul sound source south specifications spring
    square stack stage star start state stay steel step sterling steward still stone stop storage
    storm stormy story strange string strong su subject such sue summary summer sun sunday sunny
    sunshine support sure sweet sync tab table tad tag tai take talk tan tanner tao target task tea
    teal team tech tell ten term test text thank thanks the theme then theta they thing think this
    thu thursday tick ties til till time timer tin tiny tip to today token tomorrow tone tonight too
    tool top topic tot total tour tower town toy trace track trade train treasure tree trey tri
    trial trip true trust truth try tuesday tune tuple turn twin two type uni unique unit unknown
    unnamed up update urban us use useful user valentine valid value van vast verity very vest vet
    vi victory view viking villa viola violet virtue vita viva void von wade wage wait walk wall
    want ward ware warm warner warning warren wash water way we weaver web wednesday week well west
    wheeler white who why wick wild wilder will willow win windy wine wing winner winter wise wish
    with wolf woman wonder wong wood woods woody word work world worth wren write writer yan yang
    year yes yesterday yoga you young zen zero zip zone
"""
WORDS = frozenset(_WORDS.split())

# Beside their name stands what makes a house, a street or a company of it.
_HOUSES = """
    act airlines airport algorithm ave avenue award awards bank beach boulevard bridge bros brothers
    building canyon castle center centre church city clinic club co coast college company corp
    corporation county court cup day drive effect equation estate falls foundation garden gardens
    gmbh grill group hall harbor harbour heights high highway hill hills hospital hotel house inc
    index industries inn institute island islands labs lake lane law library limited llc llp ltd
    market memorial method model mountain mountains museum oblast oil park party peak pizza place
    plaza plc port prize province railway ranch republic rica river road row rule school sea sons
    springs square st stadium station store street studio studios syndrome team test theatre theorem
    tower town true university valley village way works zoo
"""
HOUSES = frozenset(_HOUSES.split())

_TITLES = """
    aunt brother capt captain col cpt dame detective doctor don dr dra father frau fru fräulein gen
    herr hr ing inspector judge lady lieutenant lord lt m madam madame maj major mevr miss mister
    mlle mme monsieur mr mrs ms mx nurse officer pan pani president prof professor rabbi rev
    reverend sen senator senhor senhora sergeant señor señora sgt signor signora sir sister sr sra
    sri uncle
"""
TITLES = frozenset(_TITLES.split())

# Of these two or three words, each is a name, and all of them are nobody.
NOBODY = frozenset(
    {
        "alfa romeo", "aston martin", "ben & jerry", "calvin klein", "charles schwab",
        "dolce gabbana", "ernst young", "estee lauder", "harley davidson", "hewlett packard",
        "jack daniels", "jim beam", "johnnie walker", "johnson & johnson", "marie claire",
        "martin luther king", "mercedes benz", "merrill lynch", "morgan stanley", "philip morris",
        "ralph lauren", "rolls royce", "sherwin williams", "tiffany & co", "tommy hilfiger",
        "wells fargo",
    }
)  # fmt: skip

# What begins the name of a place.
_BEFORE_PLACES = """
    cape el fort grand great lake las los mount mt new north port saint san santa santo south st são
"""
BEFORE_PLACES = frozenset(_BEFORE_PLACES.split())
