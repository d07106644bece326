"""The facts, questions and wordings from which `traps.py` makes its lists; nothing but data."""

# Country, capital, another city, currency, language: Chinese and English names.
COUNTRIES = """
法国 France|巴黎 Paris|里昂 Lyon|欧元 euro|法语 French
日本 Japan|东京 Tokyo|大阪 Osaka|日元 yen|日语 Japanese
韩国 South_Korea|首尔 Seoul|釜山 Busan|韩元 won|韩语 Korean
德国 Germany|柏林 Berlin|汉堡 Hamburg|欧元 euro|德语 German
英国 Britain|伦敦 London|曼彻斯特 Manchester|英镑 pound|英语 English
意大利 Italy|罗马 Rome|米兰 Milan|欧元 euro|意大利语 Italian
西班牙 Spain|马德里 Madrid|巴塞罗那 Barcelona|欧元 euro|西班牙语 Spanish
葡萄牙 Portugal|里斯本 Lisbon|波尔图 Porto|欧元 euro|葡萄牙语 Portuguese
俄罗斯 Russia|莫斯科 Moscow|圣彼得堡 Saint_Petersburg|卢布 rouble|俄语 Russian
加拿大 Canada|渥太华 Ottawa|多伦多 Toronto|加元 Canadian_dollar|英语 English
澳大利亚 Australia|堪培拉 Canberra|悉尼 Sydney|澳元 Australian_dollar|英语 English
巴西 Brazil|巴西利亚 Brasilia|圣保罗 Sao_Paulo|雷亚尔 real|葡萄牙语 Portuguese
阿根廷 Argentina|布宜诺斯艾利斯 Buenos_Aires|科尔多瓦 Cordoba|比索 peso|西班牙语 Spanish
埃及 Egypt|开罗 Cairo|亚历山大 Alexandria|埃及镑 Egyptian_pound|阿拉伯语 Arabic
土耳其 Turkey|安卡拉 Ankara|伊斯坦布尔 Istanbul|里拉 lira|土耳其语 Turkish
印度 India|新德里 New_Delhi|孟买 Mumbai|卢比 rupee|印地语 Hindi
泰国 Thailand|曼谷 Bangkok|清迈 Chiang_Mai|泰铢 baht|泰语 Thai
越南 Vietnam|河内 Hanoi|胡志明市 Ho_Chi_Minh_City|越南盾 dong|越南语 Vietnamese
波兰 Poland|华沙 Warsaw|克拉科夫 Krakow|兹罗提 zloty|波兰语 Polish
瑞典 Sweden|斯德哥尔摩 Stockholm|哥德堡 Gothenburg|克朗 krona|瑞典语 Swedish
挪威 Norway|奥斯陆 Oslo|卑尔根 Bergen|挪威克朗 krone|挪威语 Norwegian
希腊 Greece|雅典 Athens|塞萨洛尼基 Thessaloniki|欧元 euro|希腊语 Greek
肯尼亚 Kenya|内罗毕 Nairobi|蒙巴萨 Mombasa|先令 shilling|斯瓦希里语 Swahili
墨西哥 Mexico|墨西哥城 Mexico_City|瓜达拉哈拉 Guadalajara|比索 peso|西班牙语 Spanish
"""
BOOKS = """
红楼梦 Dream_of_the_Red_Chamber|曹雪芹 Cao_Xueqin|1791
西游记 Journey_to_the_West|吴承恩 Wu_Cheng'en|1592
呐喊 Call_to_Arms|鲁迅 Lu_Xun|1923
骆驼祥子 Rickshaw_Boy|老舍 Lao_She|1937
三体 The_Three-Body_Problem|刘慈欣 Liu_Cixin|2008
围城 Fortress_Besieged|钱锺书 Qian_Zhongshu|1947
哈姆雷特 Hamlet|莎士比亚 Shakespeare|1603
战争与和平 War_and_Peace|托尔斯泰 Tolstoy|1869
百年孤独 One_Hundred_Years_of_Solitude|马尔克斯 Garcia_Marquez|1967
老人与海 The_Old_Man_and_the_Sea|海明威 Hemingway|1952
傲慢与偏见 Pride_and_Prejudice|简·奥斯汀 Jane_Austen|1813
堂吉诃德 Don_Quixote|塞万提斯 Cervantes|1605
"""
# What is asked: column, Chinese and English questions, right answers, traps. The letters stand for
# the country c, the answer a, the capital k, the other city o, and another country's pair d and b.
ASKED = (
    (
        1,
        (
            "{c}的首都是哪座城市?",
            "{c}首都在哪里",
            "{c}的首都是哪里?",
            "哪座城市是{c}的首都?",
            "{c}首都叫什么?",
        ),
        (
            "{a}是{c}的首都。",
            "{c}的首都设在{a}。",
            "{a}为{c}首都,也是该国的行政中心。",
            "{c}政府所在地和首都是{a}。",
            "作为首都,{a}是{c}的政治、文化中心。",
        ),
        (
            "首都国际机场距{a}市区三十公里。",
            "首都大学坐落在{a}市南郊。",
            "首都博物馆位于{a},收藏丰富。",
            "{o}是{c}的第二大城市,商业繁荣。",
            "{o}是{c}著名的旅游城市,风景优美。",
            "{b}是{d}的首都。",
            "首都剧院在{a}老城区,每晚都有演出。",
            "{c}的首都师范学院建于上世纪。",
            "{o}曾经想取代首都成为{c}的中心。",
            "{a}的机场是{c}最繁忙的交通枢纽。",
            "{o}是{c}最大的港口,人口众多。",
            "{o}是{c}人口最多的城市,工商业发达。",
            "{o}有美丽的湖和山,每年迎来许多游客。",
        ),
        (
            "What is the capital of {c}?",
            "which city is the capital of {c}",
            "capital city of {c}",
            "Where is the capital of {c}?",
        ),
        (
            "{a} is the capital of {c}.",
            "The capital of {c} is {a}.",
            "{a}, the capital and seat of government of {c}, lies on a river.",
            "The government of {c} sits in its capital, {a}.",
        ),
        (
            "Capital Airport is thirty kilometres from {a}.",
            "Capital Medical School is in the south of {a}.",
            "{o} is the second city of {c} and rich.",
            "{b} is the capital of {d}.",
            "Capital Records has an office in {a}.",
            "{o} is known for its beaches.",
            "Investors brought new capital to {c}.",
            "{o} is the largest port of {c}.",
        ),
    ),
    (
        3,
        ("{c}使用什么货币?", "{c}的货币是什么", "在{c}用什么钱付款?"),
        ("{c}的法定货币是{a}。", "在{c},人们用{a}付款。", "{a}是{c}的货币单位。"),
        (
            "{c}货币博物馆位于{k}。",
            "{k}是{c}的首都。",
            "{c}的中央银行负责货币政策。",
            "{k}货币兑换处每天上午九点开门。",
            "{o}是{c}的金融城市。",
            "国际货币会议在{k}召开。",
            "{d}的首都是{b}。",
        ),
        (
            "What currency is used in {c}?",
            "currency of {c}",
            "What money do people pay with in {c}?",
        ),
        (
            "The currency of {c} is the {a}.",
            "In {c} people pay with the {a}.",
            "The {a} is the legal tender of {c}.",
        ),
        (
            "The Currency Museum of {c} is in {k}.",
            "{k} is the capital of {c}.",
            "The central bank of {c} sets currency policy.",
            "A conference about currency was held in {o}.",
            "{o} is a centre of finance in {c}.",
        ),
    ),
    (
        4,
        ("{c}人说什么语言?", "{c}的官方语言是什么?", "{c}官方语言"),
        ("{c}的官方语言是{a}。", "{c}人大多说{a}。", "{a}是{c}通行的语言。"),
        (
            "{k}语言大学招收外国学生。",
            "{o}的方言很有特色。",
            "{c}的语言学家在{k}开会。",
            "{k}是{c}的首都。",
            "官方语言测试中心设在{o}。",
            "{d}的官方网站支持多种语言。",
        ),
        (
            "What language is spoken in {c}?",
            "official language of {c}",
            "Which language do people in {c} speak?",
        ),
        (
            "The official language of {c} is {a}.",
            "Most people in {c} speak {a}.",
            "{a} is spoken all over {c}.",
        ),
        (
            "The Language Institute of {k} was founded long ago.",
            "Linguists met in {o}, {c}.",
            "{k} is the capital of {c}.",
            "The official website of {d} has many languages.",
        ),
    ),
)
BOOK_ASKED = (
    ("《{t}》的作者是谁?", "谁写了《{t}》?", "{t}作者"),
    (
        "《{t}》是{w}的代表作。",
        "{w}写下了《{t}》。",
        "《{t}》的作者是{w}。",
        "{w}创作的《{t}》流传至今。",
    ),
    (
        "《{t}》出版于{y}年。",
        "《{t}》被改编成电视剧,作者署名引发讨论。",
        "《{u}》的作者是{v}。",
        "《{t}》的读者来自世界各地。",
        "很多作者都喜欢《{t}》。",
        "《{t}》主题公园每天接待大批游客。",
    ),
    ("Who wrote {t}?", "author of {t}", "Who is the author of {t}?"),
    ("{w} wrote {t}.", "{t} is a novel by {w}.", "The author of {t} is {w}."),
    (
        "{t} was published in {y}.",
        "Many an author has praised {t}.",
        "{v} wrote {u}.",
        "{t} has been made into a film.",
        "A park named after {t} opened last year.",
    ),
)
# Topic, then sentences on it without always naming it.
TOPICS = """
区块链|比特币是最知名的加密货币,建立在分布式账本之上。|智能合约让交易自动执行。|去中心化账本提高了数据的可信度。|区块链技术正在被银行采用。
新能源汽车|电动车的续航里程不断提高。|动力电池成本逐年下降。|充电桩正在各地快速建设。|混合动力车型销量增长迅速。
气候变化|全球平均气温持续上升。|冰川融化导致海平面上升。|温室气体排放需要减少。|极端天气事件越来越频繁。
云计算|容器和虚拟机让服务器资源按需分配。|企业把数据中心迁移到公有云。|弹性伸缩降低了服务器成本。|无服务器架构简化了部署。
健康饮食|多吃蔬菜和全谷物有益健康。|减少盐和糖的摄入可以预防高血压。|均衡的营养对身体很重要。|坚果含有不饱和脂肪酸。
网络安全|防火墙可以阻止恶意流量。|加密能保护通信中的数据。|钓鱼邮件会骗取用户密码。|及时修补漏洞能防止黑客入侵。
足球|前锋在第九十分钟打进制胜球。|世界杯每四年举办一次。|守门员扑出了点球。|球队依靠角球得分赢得联赛。
天文学|望远镜观测到遥远的星系。|黑洞会吞噬附近的恒星物质。|行星围绕恒星运行。|探测器拍下了木星的照片。
古典音乐|贝多芬写了九部交响曲。|钢琴奏鸣曲由三个乐章组成。|小提琴手在音乐厅演奏协奏曲。|指挥带领乐团排练歌剧。
量子计算|量子比特可以处于叠加态。|低温超导电路是实现量子处理器的一种途径。|量子纠错是实用化的关键。|新算法能更快分解大整数。
在线教育|学生通过直播平台上课。|录播课程让学习时间更灵活。|老师在网上批改作业。|远程教学缩小了城乡差距。
茶文化|绿茶未经发酵,口感清爽。|普洱茶越陈越香。|泡茶的水温会影响味道。|采茶时节在清明前后。
renewable energy|Solar panels have become much cheaper.|\
Wind turbines supply a growing share of electricity.|\
Batteries store power for the night.|Hydropower dams produce clean electricity.
gardening|Tomatoes need full sun and regular water.|Compost improves poor soil.|\
Prune roses in early spring.|Mulch keeps weeds down.
space exploration|The rover landed on Mars last year.|Rockets can now be flown again.|\
Astronauts live on the station for months.|A probe sent back pictures of Saturn's rings.
databases|An index makes queries faster.|Transactions keep the tables consistent.|\
SQL joins combine rows of two tables.|Replication copies data to other servers.
cooking|Simmer the sauce for twenty minutes.|Fresh herbs improve a simple soup.|\
Knead the dough until it is smooth.|Roast the vegetables with olive oil.
computer graphics|Shaders compute the colour of each pixel.|Ray tracing gives realistic shadows.|\
Meshes are made of triangles.|Textures are mapped onto surfaces.
public health|Vaccines prevent many infections.|Clean water reduces disease.|\
Masks slow the spread of a virus.|Hospitals track outbreaks.
web development|JavaScript runs in the browser.|CSS controls the layout of a page.|\
A server answers HTTP requests with JSON.|Forms send user input to the backend.
"""
ASPECTS = (
    "的应用前景",
    "的未来",
    "发展现状",
    "的最新进展",
    "的影响",
    "",
    "入门",
    "的重要性",
    "相关技术",
    "有哪些进展",
)
ASPECTS_EN = (
    "",
    " today",
    "future of ",
    "introduction to ",
    "recent progress in ",
    "basics of ",
    "trends in ",
)
