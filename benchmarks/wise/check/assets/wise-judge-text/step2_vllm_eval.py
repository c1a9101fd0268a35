"""The gold check's stand-in for the published program: the same shape, in words of this project's own."""


def build_evaluation_messages(prompt_data, image_base64):
    return [
        {
            "role": "system",
            "content": [{"type": "text", "text": "You check one picture, and give one score."}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "text",
                    "text": f"""Does it show what is meant? Answer "Score: 0" or "Score: 1" in no {{other}} way.

PROMPT: "{prompt_data["Prompt"]}"
EXPLANATION: "{prompt_data["Explanation"]}"
""",
                },
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_base64}"}},
            ],
        },
    ]
