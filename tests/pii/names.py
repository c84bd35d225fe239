"""Names of people, written down by hand, not taken from the lists that the finder has."""

from __future__ import annotations

# For tuning: what the finder does with these may be looked at.
TUNED = """
Ada Lovelace|Alan Turing|Grace Hopper|Katherine Johnson|Linus Torvalds|Margaret Hamilton
Barbara Liskov|Priya Raman|Wei Zhang|Yuki Tanaka|Mohammed Al-Farsi|Fatima Zahra|Kwame Boateng
Ngozi Eze|Sven Lindqvist|Ingrid Bergstrom|Jürgen Krause|Anke Vogel|Pierre Lefebvre|Chloé Moreau
Giulia Conti|Marco Bianchi|Lucía Fernández|Diego Morales|João Pereira|Beatriz Almeida
Piotr Zielinski|Agnieszka Wrona|Ivan Sidorov|Olga Smirnova|Kateryna Bondar|Elif Demir
Mehmet Kaya|Noa Levi|Amir Hosseini|Ravi Shankar|Ananya Iyer|Minh Tran|Thi Pham|Jisoo Han
Hyun Park|Siti Rahayu|Budi Santoso|Thabo Mokoena|Aoife Byrne|Sean Murphy|Bill Carter|Rose Adler
Mark Ellison|Will Thornton|Hope Sandoval|May Whitty|Frank Ocampo|Tom Baker|Karen Whitfield
Steve Abernathy|Nadia Rahimi|Tariq Aziz|Sunita Deshmukh|Vikram Joshi|Hiroshi Nakajima
Akiko Hoshino|Ji-woo Kang|Chen Xiaoming|Li Na|Tuan Hoang|Samira Nasser|Ifeoma Okeke|Sipho Nkosi
Wanjiru Kamau|Matthias Lehmann|Birgit Seidel|Aurélie Fontaine|Guillaume Mercier|Paolo Ricci
Francesca Marino|Sergio Navarro|Pilar Jiménez|Rui Tavares|Daan Visser|Annika Nyström|Henrik Dahl
Veera Korhonen|Jakub Wojcik|Radek Novotny|Gergely Szabo|Elena Dumitrescu|Yannis Georgiou
Alexei Morozov|Daria Kozlova|Selin Yildiz|Moshe Katz|Cohen Adler|Ludwig van Dyk|Maria de la Cruz
Anne-Marie Dubois|Jean-Luc Petit|Mary Ann Evans|John F. Dawson
"""

# For judging: only the sums are looked at.
JUDGED = """
Emma Watkins|Oliver Hastings|Charlotte Brewer|Henry Caldwell|Sophie Turnbull|Daniel Okoro
Rachel Steinberg|Michael O'Leary|Patrick Donnelly|Niamh Gallagher|Rajesh Pillai|Deepa Krishnan
Arjun Mehra|Neha Kulkarni|Xiu Li|Jian Wu|Mei Chen|Haruki Mori|Sakura Ito|Kenji Watanabe
Soo-jin Lee|Min-ho Choi|Nguyen Van Hai|Linh Vo|Ahmed Mansour|Layla Haddad|Omar Khalil
Yusuf Demirci|Zeynep Arslan|Chinedu Obi|Amara Nwosu|Kofi Asante|Abena Owusu|Tendai Moyo
Lerato Dlamini|Lukas Schreiber|Heike Zimmermann|Wolfgang Brandt|Katrin Hofer|Camille Rousseau
Étienne Girard|Sandrine Leroy|Alessandro Ferrari|Chiara Esposito|Carlos Mendoza|Ana Belén Ruiz
Javier Ortega|Isabela Rocha|Thiago Barbosa|Inês Carvalho|Bram de Vries|Femke Jansen
Lars Mikkelsen|Freja Sorensen|Aino Virtanen|Mikko Laine|Tomasz Nowicki|Zofia Lis|Pavel Dvorak
Eszter Nagy|Ioana Popescu|Nikos Papadakis|Dmitry Volkov|Svetlana Orlova|Oksana Melnyk
Hannah Goldberg|Eli Roth|Sara Lindholm|Bjorn Halvorsen|Jack Mercer|Lily Bennett|Bill Hodgson
Mark Fielding|Grace Coleman|Will Hargreaves|Rose Tyler|Hope Larsen|Frank Delgado|Victor Hale
Ruby Sinclair|Max Power|Vincent van Aalst|Ursula von Beck|Juan del Rio|Ali bin Hassan
Robert J. Finch|Mary Jane Holland
"""


def listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", "|").split("|") if name.strip())
