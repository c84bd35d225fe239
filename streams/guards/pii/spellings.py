"""Names that the packages lack, or do not have in Latin letters."""

# ruff: noqa: RUF001 -- Turkish has a letter that looks like another.

from __future__ import annotations

FIRST_NAMES = """
    aadhya aarav abayomi abdul abdullah abdulrahman abena abhishek abimbola abubakar achim ada
    adaeze adama adebayo adel adeola adeyemi aditya adriana adrienn afia afua agathe agnieszka agung
    agustín ahmed aida aidoo aino aisha aishwarya aizhan ajay akash akiko akin akira akmal akosua
    aksel akshay akua al albin alejandra alejandro aleksander aleksandra aleksei alena alessandra
    alessandro alexandros alexei alfonso ali alibek aliyah aliza alma alok alonso ama amadi amal
    aman amani amara amin amina aminata amira amirah amit amrita amélie anand ananya anastasia
    anastasios anatoly anders andrei andrey andriy andrás aneta angeliki anika anikó anil anita
    anjali anjana anke ankit ankita annegret anneli anneliese annika antje antoine anton antonella
    antonis anuj anupam anwar anya aoibhinn aoife apurva aravind archana arief aristotelis arjun
    arkady arnav artem arturo arun arvid arwa aryan asante asep asha ashish ashok ashwin asma astrid
    asuka athina attila augusto aurora aurélie aviva avraham axel ayelet aylin ayman ayo ayodele ayu
    ayumi ayşe azamat aziz azra babajide balázs bambang bao baptiste baran barbora beatriz belén
    bence benoît berk bernd bhavna bilal binh birgit birgitta bjarne bjorn björn blaga blessing bo
    bodil bogdan bohdan boris boubacar bozena branko brigitte britta bruna budi burak bushra byung
    bérénice büşra caio camila camilla camille can carla carmen carsten cecilie cecília cem cenk
    ceren chaim chana chang chao charalampos chau chen cheng chetan chi chiamaka chiara chidi
    chidinma chika chima chinedu chinwe chioma chitra chiyo chloe christos chukwu chul chun ciara
    cillian claudia claudio clémence clément colm conall concetta conor consuelo cormac cristóbal
    csaba cuong cécile cédric céline dae dagmar daichi daisuke daksh dalia danilo dariusz darragh
    darya dat davide dayo deepa deepak deepika deirdre delphine deniz denys derya detlef devika dewi
    dhruv diarmuid diem dieter dilnoza dimitar dimitra dimitris dina dinesh dinh dirk divya dmitri
    dmitry dmytro dolores dong donghyun dora dov dragan duc dung duong durga dusan dániel dávid
    dörte eamon ebba ebele eberhard ebru ece ed edina edoardo eero efraim efua eilis einar eino
    eirini eitan ekaterina ekene elena eleni eliezer elif elin elina elke ellen emad emeka emer
    emese emiko emil emilia emine emre endang engin enrique eoghan ercan erich erik erkki ernst
    erzsébet esha esi eskil espen esra esteban estelle esther eszter eugenio eun eunji evangelia
    evgenia evgeny ewald fabio fabrice fabrizio fadi fahad faisal fang farah farhod farid farouk
    fatih fatima fatimah fatma fawzi federica federico fedor fei felipe femi feng ferenc fergus
    ferhat fernanda fernando fiachra filippo filiz fionn fionnuala fitri florian florin folake
    fotini francesca francesco françois françoise frauke fredrik freja frida friedrich fritz
    frédéric fumiko funmi gabor gabriela gabriele gaetano galina gamze ganesh gang gareth gaurav
    gauri gaël geeta geneviève gennady georgi georgios gerd gerda gergely gerhard ghada giacomo
    giang gianluca gianni giannis gideon gilles giorgia giorgio giovanni girish gisela gita gitte
    giulia giuseppe gizem gonzalo gopal govind graciela grigory grzegorz grégoire guadalupe guang
    gudrun gugu guillaume guillermo gunnar gustaf gustav gustavo gwen gyu györgy gábor gérard gökhan
    gül günter günther ha habib hadas hadi hae hafsa hagit hai hakan hala halil halina hamid hamza
    hana hanan hande hang hanh hani hanna hanne hannelore hans hansjörg hao harald harish harsh
    hartmut haruka haruki haruto hasan hassan hatem hatice hayat hee hege heidi heike heikki heiko
    heinrich heinz heitor helga helle helmut hemant hendra henning henrik hermann hernán hideo hien
    hieu hikaru hilda hilde hildegard hiro hiroko hiroshi hoa hoang holger hong horst hristo hua
    huan hubert huda hugo hui hung huong hussein huyen hyejin hyo hyun hyunwoo håkan håkon héctor
    hélène hülya hüseyin iain iben ibrahim ichiro ida ieuan ifeoma ify ignacio igor ikechukwu ilan
    ildikó ilie ilse iman imran imre indah indira ines inga inge ingeborg inger ingo ingrid ingvar
    intan inès inês ioana ioanna ioannis ion irem irina irmgard iryna isabel isabela isabella isamu
    isha ishaan ismail ismet itai itamar iulia ivan ivana ivette jabari jacek jae jaehyun jagdish
    jaime jamal jamil jamila jana jari jarl jaroslav jatin javier jawad jaya jelena jens jerzy
    jesper jia jiahao jian jiang jianguo jie jihoon jihye jimena jimin jin jing jingyi jiri jisoo
    jiwon jiwoo jo joachim joanna joaquim joaquín jochen johan johanna johannes joko jonas joon
    jordi jorge jorgen josephine josé jozef joël judit jukka juliana julien jun jung junko jussi
    jutta jyoti jérôme jörg jürgen kaan kabir kadir kagiso kai kaisa kaj kajal kamal kamala kapil
    karan kari karim karima karin karsten karthik kartika kasper katalin katarzyna katerina kateryna
    katja katrin katrine kavita kavya kazuki kazuo keiko kemal kenji kenta kerem kerstin khadija
    khaled khalid khanh khoa khrystyna kim kiran kirill kirsi kirsten kishore kjell klara klaus knut
    kofi kojo konrad konstantin konstantinos kostas krishna kristian kristoffer krzysztof ksenia
    kunal kurt kusuma kwabena kwaku kwame kwang kwesi kyoko kyung laetitia laila laith lajos lakshmi
    lalit lamia lan lara larisa lars lasse latha latifa laurent layla leandro lech leela leena lei
    leif leila lennart leonid lerato lestari lesya letícia leyla li lian liang lien lin lina lindiwe
    ling linh linnea lior lise liv ljubica loan long lorcan lorena lorenzo lothar lotta lourdes loïc
    luana lubna lubomir lucia lucian luciana lucie ludmila ludovic ludwig luigi luiz lutz luísa
    lyudmyla lászló léa léon maayan made madhav madhu mads maeve magda magdalena magnus maha mahesh
    mahmoud mai mairead maja majid makoto maksym mala malachy malak malgorzata mamadou mamta mandla
    manfred manoj manon manuel manuela marat marcel marcela marcelo marek maren margarete margarida
    margaux margit margot maria mariam mariana marija mariko marina marion marit marita markku marko
    martina marwa marwan maryam masako masato massimo mateo matheus mathieu mathilde matteo matthias
    matti mauricio maxim maxime maysa mechthild meena meera megumi mehdi mehmet mei meir mercedes
    merve meryem metin mette mi mia michal michiko midori miguel mihai mihály mikael mikhail mikkel
    mikko miklós milan milena miloš min ming mingze minh minjae minji minjun minna minoru minseo
    mircea mireille mirko miroslav misaki mohamed mohammad mohammed mohan mona monica monika
    montserrat mordechai morten moshe mosi mounir moussa mpho muhammad muireann mukesh muna murad
    murali murat murilo mustafa my mykola márta mélanie na nabil nada nadezhda nadia nadine nadiya
    naftali najib naledi nam nana nanami nandi nandini naoki naoko nasser natalia natalya natasha
    nathalie natália naveen nawal nazlı neha neo nesrin nga ngan ngoc ngozi nhi nhung nia niall
    niamh nicolae nicolás niels nikhil nikita niklas nikola nikolai nikos nils nilüfer nina ning nir
    nisha nitin nkechi nneka nomsa nomvula norbert noriko nour noura noémie nuala nuria nurit
    nursultan nurul oanh obinna octavio océane oded odile ofer oisin okan oksana ola olaf olamide
    olav ole oleg oleh oleksandr oleksiy olena olga olof olu olumide oluwaseun omar ondrej onur
    onyeka oren orest orhan orla orsolya osama oskar osman ottmar ousmane outi oğuz padma padraig
    palesa pallavi panagiotis pankaj paola parvati pascale pasquale paula pauline paulo pavel pavlo
    pavlos payal pedro pekka pelin pentti pernille petr petra petro petru philippe phong phuc phuong
    pia pietro pilar ping piotr pirjo polina pooja pradeep prakash pranav prasad preeti priya
    priyanka przemek putri putu péter pınar qasim qi qiang qing quan quang quentin quoc quynh rabia
    rachna radha radoslav radu rafael rafiq raghav ragnar ragnhild rahmat rahul raimundo rainer
    raisa raj rajesh rajiv rakesh ralf ram ramazan ramesh rami ramón rana rania raphaël rasha rashid
    rasmus ravi raúl recep reem reiko reiner reinhard reino rekha renata renate renaud renu rené
    reshma rhiannon rhys ricardo rida riikka rima rin rina rishi risto ritu rivka riyad rizky
    roberto rocío rodica rodrigo rogério rohan rohit roisin roland rolf romain roman ronan rong
    ronit rosa rosario rostislav ruairi rubén ruchi rudo rui runa rune rupa ruslan rustam ryo ryota
    régis réka rémi rüdiger saad sabah sabine sachin sade safiya saga said sakari sakura salem salim
    salma salvatore sami samir samira sana sandeep sandrine sang sangeeta sanjana sanjay sanjeev
    sanna santiago santosh sara sari sarita sasha satomi satoshi satu sayed sebastian sekou selim
    selin seojin seojun seoyeon sergei sergey sergio serhiy serkan setsuko seun seung sevgi shadi
    shahid shai shalini shan shanti sherif shigeru shilpa shinji shira shivani shizuka shlomo
    shoshana shreya shruti shu shuang sibel sibusiso siddharth siegfried signe sigrid sigrun silke
    silvia silviu simba simona simone sinan sindre sinead siobhan sipho siri sissel siti sizwe
    slamet slavica slobodan smita sneha sofia sofiya soledad solveig solène son sonia soo soojin
    sora sorcha soren sorin sorina sourav soyeon spyros sri srinivas stanislav stavros stefan
    stefania stefanie stefano steffen stelian stelios stepan stig stine stéphane subhash sudha
    sudhir suha sujata sukarno sulaiman suman sune sung sunil sunita suresh surya susana susanna
    susanne sushma suvi svein sven svenja svetlana svitlana swati swen sylvain sylvie szymon sándor
    sébastien séverine süleyman tadashi tadeusz tadhg taehyung taha tahir takashi takeshi takumi tal
    talal tam tamar tamer tamás tan tanvi tao tapio tara taras tarek tariq taro tatenda tatiana
    tatyana teemu temitope tendai teodor teresa terhi tetsuya tetyana thabo thandi thandiwe thanh
    thao themba theodoros thi thiago thibault thien thierry thor thora thorsten thu thulani thuy
    théo tiago tibor tien tiina timo timur ting tobias tolga tolu tomasz tommaso tomoko tomáš tone
    tor torben tore torsten toru tova tove trang traudel tri trine trinh trisha tristan trond trung
    tsubasa tu tuan tunde tuomas tuula tuyen tuyet tuğba tzvi tünde uche udo ulf ulla ulrich ulrike
    uma umesh umut uri ursula usha ute uwe uyen vadim valentin valentina valeria valery valérie van
    vandana vanessa varun vasant vasile vasiliki vasilis vasily vasyl veena vegard veikko venkat
    veronika vicente vidar vidya viet viggo vijay vikram viktor viktoriya ville vilma vinay vincenzo
    vineet vinh vinod viorel virginie vishal vitaly vitória vivek vlad vladimir vladislav vlado
    volkan volker volodymyr vy vyacheslav václav véronique wael wafa wahyu walid walther wangari
    wanjiru warda wayan wei wen wenjie werner wilhelm winfried wojciech wolfgang woo wulan xavier
    xia xiang xiao xiaohong xiaoming xiaoyan ximena xin xiu xiuying xuan xue yael yahya yair yan
    yana yang yann yannick yannis yanti yara yaron yaroslav yasemin yash yasmin yasuko yavuz yaw
    yegor yehuda yelena yen yeon yevgeny yewande yi yiannis yichen yifan ying yinka yitzhak yiğit
    yngve yoav yoko yolanda yonatan yong yoona yoshiko yossi younes young youssef yu yuan yudi yue
    yujin yuka yuki yulia yuliya yumi yun yuri yuriy yusuf yuta yves yvonne zahra zaid zainab zaki
    zanele zarina zayd zbigniew zdenka zehra zeinab zeynep zhen zhi zhihao ziad zihan zita ziv ziyi
    zodwa zola zoltán zoran zoya zsolt zsófia zuri zuzana álvaro ângela åsa élodie émilie éric
    étienne özge özlem
"""

SURNAMES = """
    abdullah achebe achterberg adeyemi adler agarwal agbaje aguilar ahmad ahmed akhtar akinde aliyev
    almeida alvarez andrade antonov arslan asante aslan ayala aydin aydın bae baek balogun banda
    banerjee barbosa barros bauer becker begum belov bernard bhatt bianchi bianco blanc boateng
    bondar bondarenko bose boyko braun brunner cabrera campos carvalho castillo castro chan
    chatterjee chaudhary chavez chen cheng cheung chiang chin cho choi choudhury chowdhury chu
    contreras costa cruz dang das demir desai dhillon diallo diaz dimitrov dlamini do dubois duong
    ekwueme erdogan espinoza esposito estrada eze fan farah feng fernandez ferrari ferreira fischer
    fofanah fontaine fujimoto fujita fukuda fung gallo gao garg georgiou ghosh gill gomes gonçalves
    greco grewal grigoriou guerrero gunawan guo gupta haddad hakimi halim hamdan hamid hamza han
    harris hashimoto hassan he hernández herrera hidayat ho hoang hong hopper hosseini hu huang
    huber hung hussain huynh hwang ibrahim ibrahimov ikeda inoue ishikawa ito ivanova iwasaki iyer
    jain jang jansen jansons jiang jiménez jovanović jung kamara kamau kang kaplan kapoor karimi
    kato kaur kaya kebede keller kelly khalil khan khumalo kim ko kobayashi kobia konaté koroma
    kovalenko kovač kovács kowalczuk kowalczyk kowalska kowalski kravchenko krishnan kruger kulkarni
    kumar kumari kuznetsov kwok kwon lai lam lange lau lavoie lebedev lee lefebvre leroy lewandowski
    li liang liao lim lin liu lopes lovelace lozano lu lung luo ma mabaso magalhães mahlangu mahmoud
    maier malhotra malik mansour marino marković martins masuda matsumoto mbeki mcdonald mckenzie
    medina mehta melnyk mendes mendoza menon mensah meyer miah mishra miyazaki mohamed mokoena
    molina moreau moreira moreno moretti mori morozov moyo mukherjee mutasa mwangi müller nagy
    naidoo nair nakajima nakamura nasser navarro ncube ndiaye neumann nguema nguyen nikolov nkosi
    noor novak novikov novák nowak ntuli nunes nwosu o'brien o'connor o'neill o'sullivan obi ochieng
    odhiambo ogawa oh ojo okada okafor okeke okonkwo okoro olawale omondi onyango orlov ortega osei
    osman otieno owusu ozturk paek pak pandey papadakis papadopoulos park patel pavlenko pawar peng
    pereira perera petrov petrova petrović peña pham phan phung pillai pinto popescu popov prasad
    qin quach quan qureshi rahimi rahman raman ramirez ramos rangan rao rasmussen rastogi raza reddy
    ribeiro ricci richter rinaldi rivas rocha roche rodrigues rojas romano romanov rossi roy ruiz
    ryu saeed saito sakai salazar saleh salvador sandhu sangha sankar santoro sarkar sasaki sato
    savchenko schmidt schneider schröder schulz schwarz sen sethi shah shapiro sharif sharipov
    sharma shevchenko shimizu shin sidhu silva singh sinha sithole smirnov soares sokolov solanki
    song soto sousa souza srinivasan steiner suh sultan sultana sun surya suzuki szabo szabó taha
    takahashi takeda tanaka tandon tang tavares tembo thakur toure tran traoré truong tsai tsang
    tseng tu tung turan turing uchida udo ueda umar usman varga vargas vargová vasiliev vasquez vega
    venter verma vieira vo vogel volkov wagner wan wang watanabe weber wei weiss wen werner winkler
    wolff won wong wu wójcik xie xu yadav yamada yamaguchi yamamoto yamashita yang yao yazdani ye
    yeo yi yildirim yilmaz yin yoon yoshida yu yuan yun yılmaz zafar zaidi zamora zeng zhang zhao
    zheng zhong zhou zhu zimmermann zulu zuma çelik öztürk şahin
"""
