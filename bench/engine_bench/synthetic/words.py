"""The vocabulary of the synthetic world: shelves, styles, brand syllables and users."""

from typing import Final

# Category -> (median price, words of its descriptions, sub-categories). Each has the same number of sub-categories.
CATEGORIES: Final[dict[str, tuple[float, tuple[str, ...], tuple[str, ...]]]] = {
    "Shoes": (80.0, ("sole", "cushioned", "laces", "grip", "leather", "breathable"),
              ("Running Shoes", "Hiking Boots", "Sneakers", "Sandals", "Loafers", "Ankle Boots")),
    "Clothing": (45.0, ("cotton", "stitched", "fit", "fabric", "washable", "soft"),
                 ("T-Shirt", "Jeans", "Rain Jacket", "Knit Sweater", "Summer Dress", "Linen Shirt")),
    "Audio": (120.0, ("bass", "wireless", "codec", "noise", "driver", "stereo"),
              ("Headphones", "Earbuds", "Bookshelf Speaker", "Soundbar", "Turntable", "Microphone")),
    "Photography": (350.0, ("aperture", "sensor", "focus", "optics", "exposure", "mount"),
                    ("Mirrorless Camera", "Prime Lens", "Tripod", "Camera Bag", "Action Camera", "Studio Light")),
    "Computers": (260.0, ("processor", "memory", "ports", "display", "storage", "cooling"),
                  ("Laptop", "Mechanical Keyboard", "Monitor", "Mouse", "Router", "Solid State Drive")),
    "Kitchen": (40.0, ("steel", "dishwasher", "handle", "heat", "recipe", "nonstick"),
                ("Chef Knife", "Frying Pan", "Espresso Machine", "Blender", "Stand Mixer", "Tea Kettle")),
    "Furniture": (190.0, ("oak", "assembly", "upholstered", "frame", "shelf", "finish"),
                  ("Armchair", "Bookcase", "Desk", "Bed Frame", "Coffee Table", "Floor Lamp")),
    "Garden": (35.0, ("soil", "outdoor", "perennial", "weatherproof", "bloom", "watering"),
               ("Pruning Shears", "Raised Bed", "Garden Hose", "Seed Box", "Planter", "Lawn Mower")),
    "Sports": (60.0, ("training", "endurance", "strength", "club", "match", "workout"),
               ("Yoga Mat", "Tennis Racket", "Kettlebell", "Football", "Swim Goggles", "Climbing Harness")),
    "Cycling": (95.0, ("gears", "carbon", "chain", "tyre", "ride", "spokes"),
                ("Road Bike", "Bike Helmet", "Pannier", "Bike Light", "Cycling Jersey", "Floor Pump")),
    "Outdoor": (85.0, ("waterproof", "summit", "trail", "lightweight", "shelter", "camp"),
                ("Tent", "Sleeping Bag", "Backpack", "Camping Stove", "Headlamp", "Trekking Poles")),
    "Beauty": (22.0, ("fragrance", "skin", "vitamin", "gentle", "botanical", "glow"),
               ("Face Cream", "Lipstick", "Shampoo", "Perfume", "Sunscreen", "Nail Polish")),
    "Toys": (28.0, ("play", "imagination", "puzzle", "children", "colourful", "wooden"),
             ("Building Blocks", "Board Game", "Plush Bear", "Model Train", "Jigsaw", "Science Kit")),
    "Books": (16.0, ("chapter", "story", "author", "edition", "hardcover", "illustrated"),
              ("Crime Novel", "Cookbook", "Science Fiction", "Travel Guide", "Biography", "Poetry")),
    "Games": (48.0, ("multiplayer", "quest", "console", "levels", "strategy", "arcade"),
              ("Racing Game", "Role-Playing Game", "Platformer", "Gamepad", "Puzzle Game", "Flight Simulator")),
    "Music": (140.0, ("strings", "tuning", "rhythm", "acoustic", "stage", "melody"),
              ("Guitar", "Digital Piano", "Ukulele", "Drum Kit", "Violin", "Synthesizer")),
    "Pets": (25.0, ("treats", "paws", "grain", "cosy", "vet", "chew"),
             ("Dog Food", "Cat Tree", "Dog Leash", "Aquarium", "Bird Feeder", "Pet Bed")),
    "Groceries": (7.0, ("organic", "roasted", "harvest", "flavour", "pantry", "taste"),
                  ("Coffee Beans", "Olive Oil", "Dark Chocolate", "Green Tea", "Pasta", "Honey")),
    "Watches": (210.0, ("movement", "sapphire", "strap", "dial", "water", "second"),
                ("Dive Watch", "Smartwatch", "Dress Watch", "Chronograph", "Field Watch", "Watch Strap")),
    "Stationery": (12.0, ("paper", "ink", "nib", "ruled", "bound", "sketch"),
                   ("Notebook", "Fountain Pen", "Planner", "Watercolours", "Desk Organizer", "Pencil Set")),
}  # fmt: skip

STYLES: Final = (
    "Alpine", "Amber", "Antique", "Arctic", "Aurora", "Bamboo", "Bold", "Boreal", "Breezy", "Calm", "Canyon",
    "Carbon", "Classic", "Coastal", "Copper", "Coral", "Cosmic", "Crimson", "Desert", "Dusk", "Ember", "Emerald",
    "Festive", "Forest", "Frost", "Golden", "Graphite", "Harbor", "Heritage", "Indigo", "Ivory", "Jade", "Lunar",
    "Matte", "Meadow", "Midnight", "Minimal", "Misty", "Modern", "Monochrome", "Neon", "Nordic", "Ocean", "Olive",
    "Opal", "Pastel", "Pearl", "Pioneer", "Quiet", "Retro", "Rugged", "Rustic", "Saffron", "Scarlet", "Silver",
    "Solar", "Stealth", "Terra", "Tropical", "Urban", "Velvet", "Vintage", "Wild", "Zen",
)  # fmt: skip
BRAND_STARTS: Final = (
    "Nor", "Vel", "Kan", "Tor", "Lum", "Bra", "Sol", "Fen", "Mar", "Ost", "Pri", "Quo", "Riv", "Sel", "Tam", "Ver",
)  # fmt: skip
BRAND_ENDS: Final = (
    "vik", "ora", "eda", "mont", "ax", "ique", "don", "elle", "ter", "is", "wood", "sen",
)  # fmt: skip

AGE_GROUPS: Final = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
SIGNUP_SOURCES: Final = ("organic", "search_ad", "social_ad", "referral", "app_store")
DEVICES: Final = ("mobile", "desktop", "tablet", "tv")
# Location -> country
LOCATIONS: Final = {
    "berlin": "DE", "hamburg": "DE", "munich": "DE", "paris": "FR", "lyon": "FR", "london": "GB", "leeds": "GB",
    "madrid": "ES", "valencia": "ES", "milan": "IT", "rome": "IT", "new_york": "US", "austin": "US", "seattle": "US",
    "toronto": "CA", "sao_paulo": "BR",
}  # fmt: skip
SURFACES: Final = ("home", "category", "cart", "email")
