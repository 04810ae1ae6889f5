"""Function words of many languages, by Wikidata's codes.

Articles, prepositions, conjunctions, pronouns and the most common verb forms, as they are written.
Words that are better known as a name when folded ("über", "como") are left out.
"""

FUNCTION_WORDS_OF = {
    "af": """
        aan al as by daar dat die dit een ek en het hy in is jy maar met na nie of om ons op saam sy
        te toe uit van vir was wat
    """,
    "ar": """
        التي الذي الى ان او بعد بين ثم ذلك على عن عند في قبل كل لا ما مع من هذا هذه هو هي و
    """,
    "bg": """
        в да до е за и или като които който към на не но от по при с са се със тази това този
    """,
    "ca": """
        a al als amb de del dels el els en entre i la les lo més no o pel pels per que se sense seu
        seva si sobre un una uns va és
    """,
    "cs": """
        a ale ani do i jak jako je jeho jejich její jen jsou já k ke která které který mezi má na
        nad ne nebo o od po pod pro při s se si ta tak tam te ten to u v ve však z za ze že
    """,
    "cy": """
        a ac am ar at dan dros ei eu gan gyda hyd i mae mewn na o oedd tan un y yn yr
    """,
    "da": """
        af at blev da de dem den der det du efter eller en er et for fra han har hun hvor i ikke jeg
        kan man med men mod nu når og også om op over på sig sin skal som til ud under var ved vi
    """,
    "de": """
        aber als am an auch auf aus bei bin bis da das dem den der des die durch ein eine einem
        einen einer eines er es für hat hinter ich ihr im in ist ja kann kein mit nach neben nicht
        noch nur ob oder ohne sein sich sie sind so um und unter vom von vor war was wenn wer wie
        wir wird zu zum zur zwischen
    """,
    "el": """
        ένα ένας από για δεν είναι η και κατά με μια να ο οι που προς σε στα στη στην στις στο στον
        τα την της το τον του των ως
    """,
    "es": """
        a al ante antes bajo cada con contra de del desde donde dos el ella ellos en entre era es
        esta este esto fue ha hasta hay la las le les lo los mas me mi muy ni no nos o para pero por
        que se ser si sin sobre son su sus te tras tu un una unas uno unos y ya yo
    """,
    "et": """
        aga ei ja ka kas kes kui kus ma me mis ning oli on seda see selle siis ta te või üks
    """,
    "eu": """
        baina bat da dago dira du ere eta ez hau hori zen
    """,
    "fa": """
        آن از است این با بر برای به تا در را هم و که یا یک
    """,
    "fi": """
        ei että he hän ja jo joka jos kanssa kuin kun me minä mutta myös ne niin nyt ole oli olla on
        ovat se sekä sen siellä tai tämä vain
    """,
    "fr": """
        a ai au aux avec ce ces cet cette chez ci dans de des deux du elle en entre es est et eu il
        ils je la le les leur lui ma mais me mes mon ne nos notre nous on ont ou par pas plus pour
        que qui sa sans se ses si son sont sous sur ta te tes toi ton tu un une vers vos votre vous
        y
    """,
    "ga": """
        ag an ar as do go i is le na ná seo sin ó
    """,
    "gl": """
        a ao aos as con da das de do dos e en entre máis na nas no nos o os ou para pero por que se
        sen sobre un unha
    """,
    "he": """
        או אל אם את בין גם הוא היא הם זה זו כי כל לא מן על עם של
    """,
    "hi": """
        एक और का कि की के को तक था थी थे ने पर भी में यह वह साथ से ही है हैं हो
    """,
    "hr": """
        a ali bez bi da do duž i ili iz iza ja je još kao kod koja koje koji među na nad ne ni nije
        o od oko on ona pa po pod pred pri s sa se su ta te to u uz već za
    """,
    "hu": """
        a ahol aki ami az azt be csak de egy el ez ezt fel ha hogy is itt ki le meg mint még nagy ne
        nem vagy van volt én és ő
    """,
    "id": """
        ada adalah akan anda atau bagi bisa dalam dan dari dengan di ia ini itu juga kami ke kita
        lah oleh pada para saat saya se sebuah seorang sudah telah tidak untuk yang yg
    """,
    "is": """
        af að ekki em en er eða frá fyrir hann hún með og sem til um upp var við á ég í úr það
    """,
    "it": """
        a ad agli ai al alla alle allo anche c che chi ci coi col con cui d da dagli dai dal dalla
        dalle dei del della delle dello di e ed era fra gli ha hai ho i il in io l la le lei li lo
        lui ma me mi mia mio ne negli nei nel nella nelle nello noi non o per più qui se sei si sono
        su sua sue sugli sui sul sulla sulle suo te ti tra tu un una uno va vi voi
    """,
    "la": """
        ab ad atque cum de e est et ex in non per pro qui quod sed si sub ut
    """,
    "lt": """
        apie ar bei bet buvo dėl i ir iš jo jos jų kad kai kaip kur nei nes nuo o per po prie prieš
        su tai tik už yra į
    """,
    "lv": """
        ar arī bet bija ir jau kas kā lai ne no pa par pie pēc tas un uz vai
    """,
    "ms": """
        ada adalah atau dalam dan dari dengan di ini itu ke oleh pada tidak untuk yang
    """,
    "nb": """
        at av ble da de dem den der det du eller en er et etter for fra han har hun hvor i ikke jeg
        kan man med men mot nå og også om opp over på seg sin skal som til under ut var ved vi
    """,
    "nl": """
        aan al als bij dan dat de den der deze die dit door dus een en er haar had heb heeft het hij
        hoe hun ik in is je kan maar me met mijn na naar niet nog nu of om onder ons ook op over te
        tegen tot u uit van veel voor was wat we wel werd wij ze zich zij zijn zo zonder
    """,
    "nn": """
        at av dei den det du då eg ein eit er etter for frå han har ho i ikkje med men og om på seg
        som til ut ved vi
    """,
    "pl": """
        a albo ale bez bo by być co czy dla do go i ich im ja jak jako je jego jej jest już która
        które który lub ma mi mnie na nad nie niż o od on ona po pod przed przez przy s się sobie są
        tak tam te ten to tu ty tylko u w we więc wy z za ze że
    """,
    "pt": """
        a ao aos até com da das de dela dele depois do dos e ela ele em entre era essa esse esta
        este eu foi há isso já lhe mais mas me mesmo meu minha muito na nas nem no nos não nós o os
        ou para pela pelas pelo pelos por quando que quem se sem ser seu seus sua suas são só também
        te tem um uma umas uns às é
    """,
    "ro": """
        a al ale am ar au ca care ce cel cu cum că da dar de din după e ea ei el este eu fi fără i
        la le lui mai ne nici nu o pe pentru prin sa sau se si sub sunt să un una unde unei unui în
    """,
    "ru": """
        а без бы был была было быть в вам вас во все всё вы где да для до его ее если есть ещё её же
        за и из или им их к как ко когда кто ли мне мы на над не нет ни но о об он она они оно от по
        под при про с со так там то тот ты у уже что это этот я
    """,
    "sk": """
        a aj ako ale alebo ani bez by cez do ho i ich je jeho jej k ke ktorá ktoré ktorý medzi na
        nad nie o od po pod pre pri s sa si so sú tak tam ten to u v vo však z za zo čo že
    """,
    "sl": """
        a ali bi biti brez da do in iz je jih jo k kaj kako kar ki ko kot med na nad ne ni o ob od
        pa po pod pred pri s se si so ta te to v z za že
    """,
    "sq": """
        dhe e i ka me më nga një në pa po për që se si tek të u është
    """,
    "sr": """
        а али да до за и из или као која које који на не о од по са се су у је
    """,
    "sv": """
        att av blev de dem den det du då efter eller en er ett från för han har hon hur i inte jag
        kan man med men mot ni nu när och också om på se sig sin ska som så till under upp ur ut vad
        var vi vid än är över
    """,
    "sw": """
        cha hadi huu ka katika kwa la lakini na ni pia sana wa wake ya yake za
    """,
    "ta": """
        அந்த இந்த உள்ள என்று ஒரு மற்றும்
    """,
    "tl": """
        ang at ay ba ito ka ko kung mga mo na nang ng ni o pa para sa si siya
    """,
    "tr": """
        ama bir bu da daha de değil diye en gibi göre hem her ile ise için ki kim mi mu ne o olan
        olarak sen var ve veya ya yok çok şu
    """,
    "uk": """
        а або але без був була було бути в вже ви вона вони все від він для до ж з за зі й його коли
        ми мій на над не ні о об по при про під та так там те ти то у усе хто це цей що я як є і із
        їх її
    """,
    "ur": """
        اور ایک بھی تھا سے میں نے وہ پر کا کو کی کے ہیں ہے یہ
    """,
    "vi": """
        ai bị cho các cái có cùng của do em giữa hay hơn khi không là lên lại mà mình mỗi một người
        như nhưng những nào này nên nếu ra rất sau sẽ theo thì trong trên tôi tại từ và vào vì về
        với đang đi đây đã được đến để ở
    """,
}
