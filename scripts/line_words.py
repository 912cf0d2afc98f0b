"""The words that document lines are made of: an inventory to train on, and another to be tested on."""

# ruff: noqa: RUF001 - half of the words are Russian on purpose

from __future__ import annotations

# Templates: {name} is drawn from the list of that name, # is a random digit and ~ one from 1 to 9.
HELD_OUT: dict[str, dict[str, list[str]]] = {
    "ru": {
        "line": [
            "{prose}",
            "{prose}",
            "{prose}",
            "{letter}",
            "{invoice}",
            "{invoice}",
            "{person}",
            "{address}",
            "{date}",
            "{amount}",
        ],
        "prose": [
            "Утром над рекой долго стоял густой туман.",
            "Дети бежали по дороге и громко смеялись.",
            "Старый мост давно никто не чинил.",
            "К вечеру ветер стих, и пошёл тёплый дождь.",
            "На подоконнике цвела герань в глиняном горшке.",
            "Библиотека закрывается в девять часов вечера.",
            "Почтальон принёс два письма и газету.",
            "Вдоль забора росли высокие подсолнухи.",
            "Художник смешал охру с белилами.",
            "Щенок спрятался под крыльцом и уснул.",
            "Мы выехали засветло, чтобы успеть к парому.",
            "Яблоки в этом году созрели раньше обычного.",
            "Лёд на озере тронулся в середине апреля.",
            "Хозяйка поставила на стол самовар и варенье.",
            "Снегирь сел на ветку прямо у окна.",
            "Поезд опоздал на сорок минут.",
            "Музыканты настраивали скрипки перед концертом.",
            "В сундуке нашлись карты и медный компас.",
            "Учитель объяснил задачу ещё раз.",
            "Эхо повторило его крик трижды.",
            "Цены на рынке выросли вдвое за зиму.",
            "Юнга первым увидел берег.",
            "Брат чинит велосипед во дворе.",
            "Шторм утих только на рассвете.",
            "Бабушка вязала носки из серой шерсти.",
            "Съезд участников назначен на пятницу.",
            "Объявление висело у входа в подъезд.",
            "Рыбаки вернулись с богатым уловом.",
            "Фонарь качался и скрипел всю ночь.",
            "Экипаж получил разрешение на взлёт.",
        ],
        "letter": [
            "Уважаемый {man} {middle}!",
            "С искренним уважением, {last} {initials}",
            "Просим подтвердить получение до {day}.{month2}.{year}",
            "Ответ на Ваш запрос от {day} {month} {year} г.",
            "Направляем Вам экземпляр соглашения № ~##/#",
            "Благодарим за быстрый ответ и терпение.",
            "Почта: {mail}@{domain}.example",
            "Приложение: чертежи на ~ листах",
            "Надеемся на дальнейшее сотрудничество.",
            "Возражений по протоколу не имеем.",
            "Телефон для справок: +7 (4##) ###-##-##",
        ],
        "invoice": [
            "Накладная № ~#### от {day}.{month2}.{year}",
            "{goods}, ~# шт. по ~## руб.",
            "Поставщик: ООО «{firm}»",
            "Плательщик: АО «{firm}»",
            "ИНН ~#########, КПП ~########",
            "Ставка НДС 20%: ~ ###,## руб.",
            "Всего к перечислению: ~# ###,## руб.",
            "{goods} ({color}) - ~#,# кг",
            "Скидка ~%, основание: акция № ~#",
            "Срок отгрузки: ~# рабочих дней",
            "Склад № ~, стеллаж ~#, полка ~",
            "{goods} / арт. ~##-### / ~ ###,##",
        ],
        "person": [
            "{last} {man} {middle}",
            "{last} {initials}, {post}",
            "Принял: {post} {last} {initials}",
            "Сотрудник: {last} {man}, таб. № ~###",
            "Доверенность выдана: {last} {initials}",
            "Секретарь: {woman} {surname}",
        ],
        "address": [
            "######, г. {city}, ул. {street}, д. ~#",
            "г. {city}, пер. {street}, дом ~, кв. ~##",
            "{city}, проспект {street}, ~#/~",
            "Место доставки: {city}, {street}, стр. ~",
        ],
        "date": [
            "{day} {month} {year} г.",
            "от {day}.{month2}.{year} № ~###",
            "Действует с {day}.{month2}.{year}",
            "{city}, {day} {month} {year} года",
            "Заседание: {day} {month}, 1~:30",
            "Истекает {day} {month} {year} г.",
        ],
        "amount": [
            "Остаток: ~## ###,## руб.",
            "Премия ~# ### руб. 00 коп.",
            "Задолженность: ~ ###,## €",
            "Аванс ~#% = ~# ###,## руб.",
            "Оплачено картой: ~ ###,##",
            "Пеня 0,~% за каждые сутки",
        ],
        "man": ["Григорий", "Матвей", "Фёдор", "Тимофей", "Прохор"],
        "woman": ["Зинаида", "Юлия", "Клавдия", "Эльвира", "Жанна"],
        "middle": ["Аркадьевич", "Львович", "Захарович", "Эдуардович", "Яковлевич"],
        "last": [
            "Щукин",
            "Бережной",
            "Ляпунов",
            "Ефремов",
            "Хвостов",
            "Зуев",
            "Цыганков",
            "Юрьев",
            "Ожегов",
            "Шаховской",
        ],
        "surname": ["Щукина", "Ляпунова", "Ефремова", "Зуева", "Юрьева", "Ожегова"],
        "initials": ["А. П.", "Г. Ю.", "Л. Э.", "Ж. Д.", "Ф. И.", "Н. Щ."],
        "post": ["кладовщик", "главный инженер", "архивариус", "диспетчер", "юрист", "экспедитор"],
        "city": ["Вологда", "Кострома", "Ижевск", "Хабаровск", "Элиста", "Чебоксары", "Йошкар-Ола", "Щёлково"],
        "street": ["Циолковского", "Яблоневая", "Речная", "Гоголя", "Полевая", "Юбилейная", "Фабричная"],
        "goods": [
            "Бумага офисная",
            "Кабель медный",
            "Шуруп оцинкованный",
            "Фанера берёзовая",
            "Эмаль алкидная",
            "Чехол защитный",
            "Подшипник",
            "Хомут стальной",
            "Щётка зачистная",
            "Лампа настольная",
        ],
        "color": ["жёлтый", "синий", "чёрный", "зелёный"],
        "firm": ["Северный Берег", "Вымпел", "Мехзавод", "Ягода", "Трансгруз", "Фрегат", "Жилстройсервис"],
        "month": ["января", "февраля", "марта", "июня", "июля", "августа", "октября", "декабря"],
        "month2": ["01", "02", "04", "06", "08", "09", "11", "12"],
        "day": ["03", "07", "10", "14", "16", "21", "25", "28"],
        "year": ["1998", "2007", "2013", "2016", "2021", "2024"],
        "mail": ["sklad", "kadry", "zakaz"],
        "domain": ["fregat", "bereg", "vympel"],
    },
    "en": {
        "line": [
            "{prose}",
            "{prose}",
            "{prose}",
            "{letter}",
            "{invoice}",
            "{invoice}",
            "{person}",
            "{address}",
            "{date}",
            "{amount}",
        ],
        "prose": [
            "The harbour was quiet before the morning tide.",
            "She folded the map and put it in her pocket.",
            "Nobody had painted the fence in twenty years.",
            "A kettle whistled somewhere upstairs.",
            "The orchard smelled of rain and ripe pears.",
            "He quoted the same poem every Friday.",
            "Two foxes crossed the frozen field at dusk.",
            "The train to the coast was delayed again.",
            "Their youngest cousin plays the xylophone.",
            "Bread costs twice what it did last spring.",
            "We waited under the bridge until it cleared.",
            "The jury asked for another exhibit.",
            "An owl watched us from the broken gate.",
            "Zinc and copper make a simple battery.",
            "Snow covered the valley by midnight.",
            "The carpenter measured every plank twice.",
            "Quick footsteps echoed along the hallway.",
            "My grandfather kept bees behind the chapel.",
            "Lanterns swung from the masts all night.",
            "The lecture will begin at half past ten.",
            "Six geese flew low across the marsh.",
            "Please leave your umbrella by the door.",
            "The glazier replaced both windows.",
            "Juggling looks easier than it really is.",
            "Her violin was older than the village.",
            "The museum opens a new wing this autumn.",
            "Vines had swallowed half of the cottage.",
            "Fresh ink dries slowly on waxed paper.",
            "I knew the voice but not the face.",
            "Dozens of kites filled the summer sky.",
        ],
        "letter": [
            "Dear {title} {last},",
            "Yours faithfully, {first} {last}",
            "With kind regards, {last} & Sons",
            "Thank you for your enquiry of {day} {month}.",
            "Please find enclosed our revised quotation.",
            "We apologise for the inconvenience caused.",
            "Reply to: {mail}@{domain}.example",
            "Our reference: {code}-~###/~#",
            "Kindly acknowledge receipt by {month} {day}.",
            "Encl.: ~ drawings, ~ photographs",
            "Tel. +44 ~### ######, ext. ~##",
        ],
        "invoice": [
            "Invoice no. {code}-~#### dated {day}/{month2}/{year}",
            "{goods}, ~# pcs @ $~.##",
            "Supplier: {firm} Ltd.",
            "Bill to: {firm} Inc., Suite ~##",
            "VAT reg. GB ~## #### ##",
            "Subtotal: $~,###.##",
            "Amount payable: £~#,###.##",
            "{goods} ({color}), ~#.# kg",
            "Discount ~% for early settlement",
            "Delivery within ~# working days",
            "Warehouse ~, aisle ~#, shelf ~",
            "{goods} / item ~##-### / ~##.##",
        ],
        "person": [
            "{first} {last}",
            "{title} {first} {initial}. {last}, {post}",
            "Received by: {last}, {post}",
            "Employee: {first} {last}, badge no. ~###",
            "Signed on behalf of {last}: {initial}. {last}",
        ],
        "address": [
            "~## {street} Street, {city}, {state} #####",
            "~# {street} Lane, {city}",
            "Flat ~, ~# {street} Road, {city}",
            "P.O. Box ~###, {city}, {state}",
            "Ship to: {city}, {street} Avenue ~#",
        ],
        "date": [
            "{month} {day}, {year}",
            "{day} {month} {year}",
            "Valid until {day}/{month2}/{year}",
            "Meeting: {month} {day}, 1~:30",
            "Issued in {city} on {day} {month} {year}",
            "Expires: {month2}/{year}",
        ],
        "amount": [
            "Balance due: $~,###.##",
            "Overdraft limit: £~#,###",
            "Refund of €~##.## approved",
            "Paid by cheque: ~##.##",
            "Deposit ~#% = $~,###.##",
            "Late fee: ~.#% per month",
        ],
        "first": ["Harriet", "Oswald", "Beatrice", "Julian", "Quentin", "Felicity", "Xavier", "Yvonne", "Zachary"],
        "last": ["Whitlock", "Ashworth", "Pemberton", "Quigley", "Fairbanks", "Hollis", "Jarvis", "Kingsley", "Zeller"],
        "initial": ["B", "D", "F", "G", "J", "L", "Q", "R", "V", "W"],
        "title": ["Mr", "Mrs", "Ms", "Dr", "Prof."],
        "post": ["storekeeper", "chief engineer", "archivist", "dispatcher", "solicitor", "quality auditor"],
        "city": ["Bristol", "Fort Wayne", "Savannah", "Exeter", "Jacksonville", "Hull", "Zanesville", "Quincy"],
        "state": ["GA", "FL", "IN", "VT", "WY", "NJ"],
        "street": ["Juniper", "Mill", "Orchard", "Victoria", "Gladstone", "Foxhill", "Wharf"],
        "goods": [
            "Copy paper",
            "Copper cable",
            "Galvanised screw",
            "Birch plywood",
            "Desk lamp",
            "Ball bearing",
            "Hose clamp",
            "Wire brush",
            "Vinyl jacket",
            "Gasket kit",
        ],
        "color": ["yellow", "navy", "black", "green"],
        "firm": ["Northshore", "Vexford", "Halcyon Freight", "Juno Works", "Brightwell", "Zephyr Mills"],
        "month": ["January", "February", "March", "June", "July", "August", "October", "December"],
        "month2": ["01", "02", "04", "06", "08", "09", "11", "12"],
        "day": ["3", "7", "10", "14", "16", "21", "25", "28"],
        "year": ["1998", "2007", "2013", "2016", "2021", "2024"],
        "mail": ["orders", "billing", "helpdesk"],
        "domain": ["northshore", "vexford", "zephyr"],
        "code": ["GR", "JW", "LV", "QD", "FN"],
    },
}

TRAIN_WORDS: dict[str, str] = {
    "ru": """
    а без бы был в вам вас во вот все всё да для до его ей ему если есть же за и из или им их как ко кто ли мы на нас не
    ни но о об он она они от по при про с со так там то тут ты у уже что это я договор сумма оплата счёт товар услуга
    заказ адрес город область район улица дом корпус квартира индекс паспорт серия номер дата подпись печать банк
    получатель платёж налог касса отдел директор бухгалтер менеджер водитель инструкция письмо отчёт приказ справка
    заявление работа время человек дело жизнь вопрос слово место страна земля вода книга школа машина завод станция
    площадь больница магазин рынок театр музей парк лес поле гора море остров берёза дуб кошка собака лошадь птица рыба
    хлеб молоко масло мясо сахар соль чай кофе суп каша стол стул шкаф окно дверь стена крыша потолок комната кухня
    белый красный серый новый большой малый хороший плохой первый второй третий последний важный общий частный
    делать сказать идти ехать писать читать видеть знать думать хотеть мочь любить жить стоять сидеть лежать работать
    быстро медленно хорошо плохо часто редко рано поздно вчера сегодня завтра здесь везде никогда всегда почему зачем
    Иванов Петров Сидорова Кузнецов Смирнова Соколов Попова Лебедев Козлова Новиков Морозова Волков Алексей Наталья
    Сергей Ольга Дмитрий Елена Андрей Татьяна Николай Ирина Москва Казань Самара Омск Пермь Тверь Уфа Рязань Тула
    Ленина Мира Садовая Лесная Школьная Пушкина Гагарина изделие партия упаковка ящик гвоздь краска цемент кирпич
    доска труба насос двигатель фильтр ремень болт гайка шайба стекло плитка ткань нитка игла пуговица обувь шапка
    итого количество цена единица штука метр литр тонна процент рубль копейка тысяча миллион скидка доставка возврат
    """,
    "en": """
    a an and any are as at be but by can did do for get had has he her him his how if in is it its let may me my no nor
    not of off on or our out own per say see she so the to too up us was we who why yes yet you account address amount
    agent agreement annual bank basic board branch budget building business buyer capital cash charge city claim client
    code company contract copy cost country county credit currency customer date debit department director document
    email entry export factory figure file final finance form freight fund goods grade gross group handling house import
    income index interest inventory item journal label law leader ledger letter level licence list loan local logo
    manager market material member memo method model money name network notice number office officer option order owner
    package page parcel part partner payment period permit phone place plan plant policy port post price print process
    product profit project proof public purchase quality quantity quarter rate rebate record region rent report request
    result return review risk route safety salary sale sample section seller service sheet shipment sign site size staff
    stamp statement station status stock store student summary surname system table target tax team term test title total
    town trade transfer transport travel trust type unit update user value vendor visa volume voucher wage weight work
    world year zone apple bird boat book bottle chair child cloud coat corn dance dog dream earth engine farm fire fish
    flower forest friend garden glass gold grass hand heart horse island jacket king kitchen lake leaf light lion metal
    milk moon mouth music night ocean onion paint peace piano plane plate queen river road rock room rose salt sand
    school sea ship shoe silver sister song star steel stone storm sugar sun teacher tree truck wall water wind wolf
    woman wood zebra Smith Jones Taylor Brown Wilson Evans Thomas Roberts James Mary John Linda Robert Susan Michael
    London Boston Chicago Denver Leeds York Oxford Cambridge about above after again along already between during every
    never other quite rather should their there these those through under until very where which while without would
    """,
}

# Onsets, vowels and codas that build pronounceable words, "-" for none; with repeats, the common ones come up more often.
SYLLABLES: dict[str, tuple[str, str, str]] = {
    "ru": (
        (
            "б в г д ж з к л м н п р с т ф х ц ч ш щ б в д к л м н п р с т вс гр др зд кл кр мн пл пр св ск сл см сн сп ст "
            "стр тр хл чт шк вз бл бр - - съ объ"
        ),
        "а о е и у ы я ю э ё а о е и а о е и у ия ие ью ье ой ай",
        "л н р с т к м в д й х ш ть нь ль сть ст нт рт ж ц ч щ г п б з ф зм" + " -" * 18,
    ),
    "en": (
        (
            "b c d f g h j k l m n p r s t v w y z b c d f l m n p r s t bl br ch cl cr dr fl fr gl gr kn pl pr qu sc sh sk "
            "sl sm sn sp st str th tr tw wh x - -"
        ),
        "a e i o u a e i o ai ea ee ie oa oo ou ia io y au ow",
        "b d g k l m n p r s t x ck ct ft ld ll lt mp nd ng nk nt rd rk rm rn rt sh sk ss st th tt ff es ed ing er ly ion "
        "ment ness able" + " -" * 14,
    ),
}

LETTERS = {
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
    "en": "abcdefghijklmnopqrstuvwxyz",
}
