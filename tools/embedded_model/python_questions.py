# ruff: noqa: E501
"""Questions about Python's standard library, written by hand: function, English, Chinese.

They ask for functions that no question of the demo asks for, so that the demo stays a fair trial.
"""

PYTHON_QUESTIONS = """
str.split|cut a sentence into its words|怎么把一个 string 按空格切成几段
str.join|glue the items of a list together with commas between them|用逗号把 list 里的 string 拼接起来
str.startswith|does the text begin with a certain prefix|判断 string 是不是以某个前缀开头
str.find|at which position does a word first appear in a text|查找子串在 string 里的位置
str.zfill|pad a number with zeros on the left to a fixed width|数字前面补零到固定长度
str.center|put a title in the middle of a line with padding on both sides|让文字在一行里居中
str.lower|make all letters small|把字母全部变成小写
str.casefold|compare words without caring about upper or lower case|忽略大小写比较两个 string
str.splitlines|get the lines of a multi-line text|把多行文本拆成一行一行
str.encode|turn text into bytes with UTF-8|把 string 转成 bytes
str.count|how many times does a letter occur in a word|统计某个字符出现了几次
sorted|put the elements of a list into ascending order|给一个 list 排序但不改原来的 list
reversed|go through a sequence backwards|倒着遍历一个 list
enumerate|loop over items together with their position|循环的时候同时拿到 index 和元素
any|is at least one of these conditions true|判断 list 里是否至少有一个为真
all|check that every element fulfils a condition|检查所有条件是否都成立
sum|add up all numbers in a list|求一串数字的总和
isinstance|check which type a value has|判断一个对象是不是某种类型
callable|can this object be called like a function|检查对象能不能当函数调用
getattr|read a field of an object when its name is in a string|用名字字符串读取对象的属性
round|cut a float to two digits after the decimal point|把小数四舍五入到两位
divmod|quotient and remainder in one go|同时得到商和余数
chr|which character belongs to this Unicode code point|把 Unicode 编码转成字符
ord|number of a character in Unicode|查一个字符的 Unicode 编码
list.append|put one more element at the end of a list|往 list 末尾加一个元素
list.pop|take the last element off a list|取出并删掉 list 的最后一个元素
list.index|at which place of the list is this value|查元素在 list 里的位置
dict.get|look up a key with a fallback when it is missing|key 不存在时返回默认值
dict.items|loop over keys and values together|同时遍历 dict 的 key 和 value
dict.update|merge one dictionary into another|把一个 dict 合并到另一个里
dict.setdefault|insert a key only when it is not there yet|只有 key 不存在时才写入默认值
os.rename|give a file another name|给文件改名
os.remove|delete a single file|删除一个文件
os.listdir|names of everything in a folder|列出某个 directory 下的文件名
os.getcwd|which directory am I in right now|得到当前工作目录
os.chdir|switch to another working directory|切换当前工作目录
os.getenv|value of an environment variable or a default|取环境变量的值
os.path.join|combine folder and file name into one path|把目录名和文件名拼成一个 path
os.path.basename|last part of a path without the folders|从 path 里取出文件名
os.path.dirname|folder part of a path|取 path 的目录部分
os.path.splitext|separate a file name from its extension|把文件名和扩展名分开
os.path.getsize|how large is a file in bytes|查文件有多大
os.path.isdir|is this path a folder|判断 path 是不是目录
os.path.abspath|turn a relative path into a full one|把相对路径变成绝对路径
os.kill|send a signal to another process|给某个 process 发信号
os.getpid|number of the running process|当前 process 的编号
os.chmod|change who may read or write a file|修改文件的权限
os.symlink|make a link that points to another file|创建一个符号链接
shutil.copy2|copy a file together with its dates|复制文件并保留修改时间
shutil.copyfile|duplicate the content of one file into another|把一个文件的内容复制到另一个文件
shutil.move|put a file or folder somewhere else|把文件移动到别的位置
shutil.make_archive|pack a folder into a zip or tar file|把整个目录打成压缩包
shutil.get_terminal_size|how wide is the terminal window|得到终端窗口的宽度
pathlib.Path.read_text|whole content of a file as one string|一次读出整个文本文件
pathlib.Path.write_text|save a string to a file|把 string 写进文件
pathlib.Path.iterdir|go through the entries of a folder|遍历目录里的每一项
pathlib.Path.unlink|get rid of a file by its path object|用 Path 对象删除文件
pathlib.Path.resolve|follow links and dots until the real location is known|解析出真正的绝对路径
json.loads|parse a JSON text into Python objects|把 JSON string 解析成 Python object
json.load|read JSON from an opened file|从文件里读 JSON
csv.writer|save rows as comma separated values|把数据一行行写成 CSV
re.compile|prepare a pattern that is used many times|预先编译 regex
re.findall|collect all matches of a pattern in a text|找出所有匹配 regex 的部分
re.split|cut a text wherever a pattern matches|按 regex 把 string 分开
re.fullmatch|does the pattern cover the text from start to end|整个 string 是否完全符合 pattern
re.escape|use a text with dots and stars literally in a pattern|把 regex 的特殊字符转义
datetime.datetime.now|what time is it|得到现在的日期和时间
datetime.timedelta|difference between two moments|表示两个时间的差
datetime.date.today|which date is today|得到今天的日期
datetime.datetime.isoformat|print a date in the standard form with T between day and hour|把时间输出成 ISO 格式
time.sleep|make the program wait for two seconds|让程序暂停几秒
time.perf_counter|a clock for measuring short durations precisely|高精度计时
time.monotonic|a clock that never goes backwards|不会倒退的时钟
calendar.monthrange|how many days has a month|某个月有多少天
random.shuffle|mix the cards of a deck|把 list 的顺序打乱
random.randint|throw a dice|生成一个范围内的随机整数
random.choice|pick one element by chance|随机选一个元素
random.gauss|numbers scattered around a mean like a bell curve|生成正态分布的随机数
math.sqrt|square root of a number|求平方根
math.floor|largest whole number that is not above this one|向下取整
math.factorial|product of all integers from one to n|计算阶乘
math.hypot|length of the longest side of a right triangle|求直角三角形的斜边
math.log|natural logarithm|求对数
math.comb|in how many ways can I choose k things out of n|计算组合数
math.lcm|smallest number that two integers both divide|求最小公倍数
statistics.mean|average of the values|求平均值
statistics.mode|most frequent value of the data|求众数
statistics.variance|how far the values spread around their average|求样本方差
collections.deque|a queue that is fast on both ends|两端都能快速进出的队列
collections.defaultdict|a dictionary that makes missing values by itself|key 不存在时自动创建默认值的 dict
collections.OrderedDict|a mapping that remembers the order of insertion|记住插入顺序的字典
collections.namedtuple|small record whose fields have names|带字段名的 tuple
itertools.chain|go through several lists one after another as if they were one|把几个可迭代对象连起来
itertools.product|every combination of elements from two lists|求几个 list 的笛卡尔积
itertools.combinations|all ways to pick two out of a list without order|列出所有组合
itertools.groupby|gather neighbouring items that share a key|把相邻的相同元素分组
itertools.cycle|repeat a sequence endlessly|无限循环一个序列
itertools.islice|only the first few items of an endless iterator|从 iterator 里取前几个
itertools.accumulate|running totals of a list|计算累加和
functools.partial|fix some arguments of a function beforehand|预先固定函数的一部分参数
functools.reduce|fold a list into a single value|把 list 依次合并成一个值
functools.wraps|keep the name of a function when decorating it|写 decorator 时保留原函数的名字
heapq.heappush|add something to a priority queue|往优先队列里加元素
heapq.nsmallest|the five cheapest offers of a long list|取最小的几个元素
bisect.bisect_left|binary search in a sorted list|在有序 list 里二分查找
copy.copy|a shallow duplicate of an object|浅拷贝一个对象
pickle.loads|rebuild an object from serialized bytes|从 bytes 还原 Python object
base64.b64decode|get the original bytes back from Base64 text|把 Base64 解码
hashlib.md5|fingerprint of some bytes, not for security|计算 MD5
hmac.new|sign a message with a shared key|用密钥给消息签名
uuid.uuid5|an identifier that is always the same for the same name|根据名字生成固定的 UUID
subprocess.Popen|start a program and talk to it while it runs|启动子进程并和它交互
threading.Thread|run something in the background next to the main program|开一个新的 thread
threading.Lock|only one thread at a time may enter here|保证同一时刻只有一个 thread 访问
threading.Event|let one thread wait until another gives a sign|一个 thread 等另一个 thread 的信号
queue.Queue|pass work safely between threads|thread 之间安全地传递数据
multiprocessing.Pool|spread a calculation over several processes|用多个 process 并行计算
concurrent.futures.as_completed|handle results as soon as each one is ready|哪个任务先完成就先处理
asyncio.run|start the event loop with my main coroutine|运行一个 coroutine
asyncio.sleep|pause a coroutine without stopping the others|在 async 代码里等待几秒
asyncio.create_task|let a coroutine run in the background|把 coroutine 放到后台执行
asyncio.Semaphore|allow only a few coroutines at the same time|限制同时运行的 coroutine 数量
socket.create_connection|connect to a server over TCP|建立 TCP 连接
socket.gethostbyname|IP address of a host name|查域名对应的 IP 地址
urllib.request.urlopen|download a web page|下载一个网页
urllib.parse.unquote|undo the percent codes in a URL|把 URL 里的 %20 还原
urllib.parse.urljoin|resolve a relative link against the address of its page|把相对链接拼成完整 URL
urllib.parse.parse_qs|read the parameters from the query part of a URL|把 query string 解析成 dict
smtplib.SMTP.sendmail|send an email|发送一封邮件
gzip.open|read a compressed log file|打开一个 gzip 文件
zlib.compress|make bytes smaller|压缩一段 bytes
tarfile.open|look into a tar archive|打开 tar 包
zipfile.ZipFile.write|put a file into a zip archive|把文件加进 zip 包
tempfile.NamedTemporaryFile|scratch file that has a name and vanishes on close|创建一个有名字的临时文件
tempfile.gettempdir|where does the system keep temporary files|系统的临时目录在哪里
argparse.ArgumentParser|read options from the command line|解析命令行参数
configparser.ConfigParser|read an ini file with sections|读取 ini 配置文件
logging.basicConfig|set up log output with a format and a level|设置 log 的格式和级别
logging.getLogger|a logger with a certain name|按名字得到一个 logger
traceback.print_exc|show the current error with its stack|打印当前异常的 traceback
inspect.signature|which parameters does a function take|查看函数有哪些参数
inspect.getdoc|documentation text of an object|得到一个对象的文档说明
contextlib.contextmanager|write my own with statement as a generator|用 generator 写一个 context manager
contextlib.redirect_stdout|send what is printed to a file instead|把 print 的输出重定向到文件
dataclasses.dataclass|class that only stores fields, without writing the constructor|自动生成 __init__ 的 class
dataclasses.asdict|turn a record object into a dictionary|把 dataclass 转成 dict
enum.Enum|a fixed set of named constants|定义一组命名的常量
decimal.Decimal|exact calculations with money|精确的十进制小数计算
fractions.Fraction|calculate with one third exactly|精确的分数计算
struct.unpack|read numbers out of raw bytes|从二进制数据里解析出数字
struct.pack|write integers as binary data|把整数打包成 bytes
array.array|compact list of numbers of one type|只存一种数字类型的紧凑数组
gc.collect|free unused memory now|立即触发垃圾回收
sys.exit|end the program with an error code|以某个退出码结束程序
sys.getsizeof|how much memory does an object take|一个对象占多少内存
sys.setrecursionlimit|allow deeper recursion|修改最大递归深度
platform.system|am I on Linux or Windows|判断现在是什么操作系统
platform.python_version|which version of Python is running|查看 Python 的版本
importlib.import_module|load a module whose name is in a string|用字符串动态 import 一个 module
signal.signal|react when the user presses control C|捕获 Ctrl+C 信号
shlex.split|cut a command line into arguments as a shell does|像 shell 一样拆分命令行
fnmatch.fnmatch|does a file name fit a pattern with stars|文件名是否匹配通配符
filecmp.cmp|do two files have the same content|比较两个文件内容是否相同
difflib.get_close_matches|suggest the word that a typo probably meant|找出和输入最接近的单词
string.Template|fill placeholders with a dollar sign in a text|用 $ 占位符替换文本
textwrap.shorten|cut a text to a maximum length with an ellipsis|把过长的文本截短
textwrap.indent|put spaces in front of every line|给每一行前面加缩进
unicodedata.normalize|make accented letters comparable|统一 Unicode 字符的写法
locale.setlocale|use the number format of another country|设置地区和语言格式
cProfile.run|find out which function is slow|分析哪个函数最慢
unittest.mock.patch|replace something with a fake during a test|测试时临时替换一个对象
unittest.TestCase.assertEqual|fail the test when two values differ|断言两个值相等
sqlite3.Connection.commit|make the changes to the database permanent|提交数据库的修改
xml.etree.ElementTree.parse|read an XML file from disk|读取一个 XML 文件
html.parser.HTMLParser|go through the tags of a web page|解析 HTML 里的标签
ipaddress.ip_network|does an address belong to a subnet|判断 IP 是否属于某个网段
operator.itemgetter|sort tuples by their second field|按某个字段取值
types.SimpleNamespace|an object to which I can attach any attributes|可以随意加属性的简单对象
typing.NamedTuple|typed record that is also a tuple|带类型标注的 named tuple
abc.abstractmethod|subclasses must write this method themselves|定义子类必须实现的方法
codecs.open|open a file with a certain character encoding|用指定编码打开文件
io.StringIO|a file that lives in memory and holds text|内存里的文本文件
io.BytesIO|treat bytes in memory as if they were a file|把 bytes 当成文件来读写
fileinput.input|go through the lines of several files|依次读取多个文件的每一行
linecache.getline|one certain line of a source file|读取文件的某一行
webbrowser.open|show a page in the browser of the user|用浏览器打开一个网址
"""
